"""What is remembered between two steps of a sign-in, before there is a session.

A step is an entry of the store for a few minutes, under the SHA-256 of a random id and of the
mount; the browser has the id in a cookie of its own. A step is taken once: of two requests with the
same id one continues. The cookie is `SameSite=Lax`, because a browser that comes back from an
identity provider does not send cookies that are `Strict`.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal, TypeVar

import msgspec

from asgi_aiproxy.services.identity_providers import PendingAuthorization
from asgi_aiproxy.stores.base import Store

STEP_SECONDS = 600.0
STEP_COOKIE = "aiproxy_sign_in"

Purpose = Literal["sign_in", "link", "confirm"]
S = TypeVar("S", bound=msgspec.Struct)


class ProviderStep(msgspec.Struct, frozen=True, kw_only=True):
    """The browser is at an identity provider.

    - `next`: the page to continue with; `code`: an invitation for a new user.
    - `user`, `proof`: the user that is signed in, where it links an account or confirms that it is
      still the same one. `session` is the name of the session to replace.
    """

    provider: str
    pending: PendingAuthorization
    purpose: Purpose = "sign_in"
    next: str = ""
    code: str = ""
    user: str = ""
    proof: str = ""
    session: str = ""


class FactorStep(msgspec.Struct, frozen=True, kw_only=True):
    """A user has presented its first factor, or sets up the second one while it is signed in.

    `user`, `proof` say who it is, `next` is the page to continue with. `secret` is that of the
    second factor to set up, encrypted; empty: a code of the one that it has is required. `own`:
    whether the user has a session already.
    """

    user: str
    proof: str
    next: str
    secret: str = ""
    own: bool = False


class PasskeyStep(msgspec.Struct, frozen=True, kw_only=True):
    """A page has a challenge for a passkey, which is `options` for the browser.

    To sign in, `next` is the page to continue with. To add one, `user` and `proof` say to whom, and
    `name` is that of the new passkey.
    """

    challenge: str
    options: str
    next: str = ""
    user: str = ""
    proof: str = ""
    name: str = ""


class StepStore:
    """Steps in `store`. Methods may raise StoreUnavailableError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, step: msgspec.Struct, mount: str) -> str:
        """Remember a step; returns its id."""
        id = secrets.token_urlsafe(32)
        value = msgspec.json.encode(step)
        await self._store.set_entry(_entry(type(step), id, mount), value, seconds=STEP_SECONDS)
        return id

    async def find(self, kind: type[S], id: str, mount: str) -> S | None:
        """Return a step, or None."""
        found = await self._store.get_entry(_entry(kind, id, mount))
        return msgspec.json.decode(found, type=kind) if found is not None else None

    async def take(self, kind: type[S], id: str, mount: str) -> S | None:
        """Return a step that was not taken yet, or None."""
        found = await self.find(kind, id, mount)
        taken = await self._store.delete_entry(_entry(kind, id, mount))
        return found if taken else None


def _entry(kind: type[msgspec.Struct], id: str, mount: str) -> str:
    digest = hashlib.sha256(f"{id}\n{mount}".encode("utf-8", "replace")).hexdigest()
    return f"console-{kind.__name__}:{digest}"
