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
import time
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from asgi_aiproxy.accounts.table import RowExistsError, Table
from asgi_aiproxy.stores.base import Store

_TABLE = "console"  # of what all workers share beside sessions
_FORM_KEY = "form-key"
_MAX_LISTED = 50  # sessions of one user; the oldest ones are not listed


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in: `kind` says how the caller is found again (`token`), `subject` is its id, `proof`
    the digest of the secret that it presented (of a `user`: its `session_proof`), `created` and
    `confirmed` are Unix times: of the sign-in, and when the caller has last presented a secret.
    `address` and `agent` are those of the browser.
    """

    kind: str
    subject: str
    proof: str
    created: float
    confirmed: float = 0.0
    address: str = ""
    agent: str = ""


class SessionList(msgspec.Struct, frozen=True):
    """The sessions of a user, by the names of their entries in the store."""

    sessions: dict[str, Session] = {}


class SessionStore:
    """Sessions in `store`, each for at most `seconds`."""

    def __init__(self, store: Store, *, seconds: float = 12 * 3600.0) -> None:
        self.seconds = seconds
        self._store = store
        self._lists = Table(store, "console.sessions", SessionList)
        self._form_key: bytes | None = None

    async def create(self, session: Session, mount: str) -> str:
        """Store a session; returns its new id. Raises StoreUnavailableError."""
        id = secrets.token_urlsafe(32)
        value = msgspec.json.encode(session)
        name = _entry(id, mount)
        await self._store.set_entry(name, value, seconds=self.seconds)
        if session.kind == "user":
            await self._change_list(session.subject, {name: session})
        return id

    def name(self, id: str, mount: str) -> str:
        """Return the name by which a session is in the list of its user."""
        return _entry(id, mount)

    async def of(self, user: str) -> Mapping[str, Session]:
        """Return the sessions of a user, newest first. Raises StoreUnavailableError."""
        row = await self._lists.find(user) or SessionList()
        newest = sorted(row.sessions.items(), key=lambda pair: -pair[1].created)
        return {
            name: session
            for name, session in newest
            if await self._store.get_entry(name) is not None
        }

    async def end(self, user: str, name: str) -> None:
        """End a session of a user by its name. Raises StoreUnavailableError."""
        row = await self._lists.find(user)
        if row is not None and name in row.sessions:
            await self._store.delete_entry(name)
            await self._change_list(user, {name: None})

    async def _change_list(self, user: str, changes: Mapping[str, Session | None]) -> None:
        with suppress(RowExistsError):
            await self._lists.create(user, SessionList())
        oldest = time.time() - self.seconds

        def change(row: SessionList) -> SessionList:
            merged = {**row.sessions, **changes}
            kept = {k: v for k, v in merged.items() if v is not None and v.created > oldest}
            newest = sorted(kept.items(), key=lambda pair: pair[1].created)[-_MAX_LISTED:]
            return SessionList(dict(newest))

        await self._lists.edit(user, change)

    async def find(self, id: str, mount: str) -> Session | None:
        """Return the session with this id, or None. Raises StoreUnavailableError."""
        found = await self._store.get_entry(_entry(id, mount))
        return msgspec.json.decode(found, type=Session) if found is not None else None

    async def delete(self, id: str, mount: str) -> None:
        """End a session. Raises StoreUnavailableError."""
        await self.delete_named(_entry(id, mount))

    async def delete_named(self, name: str) -> None:
        """End a session by its name. Raises StoreUnavailableError."""
        found = await self._store.get_entry(name)
        await self._store.delete_entry(name)
        session = msgspec.json.decode(found, type=Session) if found is not None else None
        if session is not None and session.kind == "user":
            await self._change_list(session.subject, {name: None})

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
