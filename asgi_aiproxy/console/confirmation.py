"""Confirm that a visitor is still the person that has signed in.

Actions of weight (roles, removal of users, keys, vouchers, settings) require that the visitor of a
session has presented its secret within the last minutes: an unlocked screen or a stolen cookie is
not enough. Where that is longer ago, forms have one more field. The confirmation replaces the
session by a new one, as each gain of rights does. What the host identifies has no session here: the
host decides when to authenticate its users again.
"""

from __future__ import annotations

import time

import msgspec

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.console.pages import Confirmation
from asgi_aiproxy.console.sessions import Session
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.sign_in import SignInService


class Confirmations:
    """Confirmations that hold for `seconds`; None: they are never required."""

    def __init__(self, admin: AdminApp, users: SignInService | None, seconds: float | None) -> None:
        self._admin = admin
        self._users = users
        self._seconds = seconds

    async def required(self, session: Session) -> Confirmation:
        """Return with what the visitor must confirm; empty if it has done so lately."""
        if self._seconds is None or time.time() - session.confirmed < self._seconds:
            return ""
        if session.kind != "user" or self._users is None:
            return "token"
        user = await self._users.recall(session.subject, session.proof)
        return self._users.confirmation(user) if user is not None else "password"

    async def check(self, session: Session, secret: str, by: Actor, scope: Scope) -> Session:
        """Return the session with which to replace one that is confirmed. Raises APIError."""
        if not secret:
            message = "Confirm that it is you, then send the form again."
            raise APIError(ErrorKind.FORBIDDEN, message, code="confirm")
        if session.kind == "user" and self._users is not None:
            user = await self._users.recall(session.subject, session.proof)
            if user is None:
                raise APIError(ErrorKind.UNAUTHORIZED, "Sign in again.", code="confirm")
            await self._users.confirm(user, secret, by)
        else:
            _, digest = await self._admin.access.verify(secret.strip(), scope)
            if digest != session.proof:
                message = "Enter the token with which you have signed in."
                raise APIError(ErrorKind.UNAUTHORIZED, message, code="confirm_token")
        return msgspec.structs.replace(session, confirmed=time.time())
