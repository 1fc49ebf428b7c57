"""Sessions of the console's own sign-in, kept in the store.

The cookie holds an opaque random id; the store holds the session under the SHA-256 of that id and
of the mount, so that a copy of the store opens no session and a session is valid at one mount only.
A session does not hold the secret that was presented: it names the caller and the digest of the
secret, and each request checks that the caller still has a secret with that digest.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import msgspec

from asgi_aiproxy.stores.base import Store

_TABLE = "console"  # of what all workers share beside sessions
_FORM_KEY = "form-key"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in: `kind` says how the caller is found again (`token`), `subject` is its id, `proof`
    the digest of the secret that it presented, `created` Unix time.
    """

    kind: str
    subject: str
    proof: str
    created: float


class SessionStore:
    """Sessions in `store`, each for at most `seconds`."""

    def __init__(self, store: Store, *, seconds: float = 12 * 3600.0) -> None:
        self.seconds = seconds
        self._store = store
        self._form_key: bytes | None = None

    async def create(self, session: Session, mount: str) -> str:
        """Store a session; returns its new id. Raises StoreUnavailableError."""
        id = secrets.token_urlsafe(32)
        value = msgspec.json.encode(session)
        await self._store.set_entry(_entry(id, mount), value, seconds=self.seconds)
        return id

    async def find(self, id: str, mount: str) -> Session | None:
        """Return the session with this id, or None. Raises StoreUnavailableError."""
        found = await self._store.get_entry(_entry(id, mount))
        return msgspec.json.decode(found, type=Session) if found is not None else None

    async def delete(self, id: str, mount: str) -> None:
        """End a session. Raises StoreUnavailableError."""
        await self._store.delete_entry(_entry(id, mount))

    async def form_token(self, identity: str) -> str:
        """Return the token that forms of this session or caller must contain.

        It is an HMAC with a key that all workers share. Raises StoreUnavailableError.
        """
        if self._form_key is None:
            await self._store.put(_TABLE, _FORM_KEY, secrets.token_hex(32).encode(), expected=None)
            self._form_key = await self._store.get(_TABLE, _FORM_KEY) or b""
        return hmac.new(self._form_key, identity.encode(), hashlib.sha256).hexdigest()


def _entry(id: str, mount: str) -> str:
    digest = hashlib.sha256(f"{id}\n{mount}".encode("utf-8", "replace")).hexdigest()
    return f"console-session:{digest}"
