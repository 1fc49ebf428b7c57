"""Management calls: their callers and roles, their envelope, and pages of ten rows.

An answer is `{"success": bool, "message": str, "data": ...}` with status 200, also for a failure,
as clients of One API expect; only a call without any credential is 401, and one of too many from
the same address 429.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeVar

from asgi_aiproxy._asgi import RawHeaders
from asgi_aiproxy.accounts import NoSuchRowError
from asgi_aiproxy.accounts.users import NameTakenError, User
from asgi_aiproxy.compat.callers import bearer_value
from asgi_aiproxy.compat.oneapi.balances import Balances
from asgi_aiproxy.compat.oneapi.channels import ChannelRouter
from asgi_aiproxy.compat.oneapi.logs import LogReader
from asgi_aiproxy.compat.oneapi.options import OptionError, Options
from asgi_aiproxy.compat.oneapi.rows import (
    ADMIN,
    COMMON,
    ROOT,
    OneAPIData,
)
from asgi_aiproxy.compat.oneapi.users import OneAPIUsers
from asgi_aiproxy.compat.routing import CompatCall, Handler
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.keys.key import fingerprint
from asgi_aiproxy.stores.base import Denied, RateLimit, StoreUnavailableError
from asgi_aiproxy.upstream import Transport

SESSION_COOKIE = "session"
PAGE_ROWS = 10
ROOT_ID = 1
_ROOT_QUOTA = 500_000_000_000_000
_MAX_FAILURES, _FAILURE_SECONDS = 20, 1200.0
_CALL_SECONDS = 180.0  # the window of the limit of calls of an address

T = TypeVar("T")


class ManagementError(Exception):
    """A call that fails; the message is for the person who made it."""

    status = 200


class TooManyCallsError(ManagementError):
    """Too many calls, or failed attempts, from one address."""

    status = 429


class NoData:
    """The type of NO_DATA."""


NO_DATA = NoData()
Run = Callable[[CompatCall, User], Awaitable[Any]]


class Management:
    """What all management routes share."""

    def __init__(
        self,
        data: OneAPIData,
        users: OneAPIUsers,
        options: Options,
        balances: Balances,
        channels: ChannelRouter,
        logs: LogReader,
        transport: Transport,
        root_password: str,
        api_limit: int = 0,
    ) -> None:
        self._api_limit = api_limit
        self.data = data
        self.users = users
        self.options = options
        self.balances = balances
        self.channels = channels
        self.logs = logs
        self.transport = transport
        self._root_digest = fingerprint(root_password)

    async def ensure_root(self) -> None:
        """Create the user `root`, with the number 1, if there is none."""
        if await self.users.find(ROOT_ID) is not None:
            return
        user = User(
            id=ROOT_ID,
            username="root",
            display_name="Root User",
            role=ROOT,  # without a password of its own: the configured one is accepted
        )
        try:
            await self.users.create(user, _ROOT_QUOTA)
        except NameTakenError:
            return  # another worker was first

    def is_root_password(self, text: str) -> bool:
        """Return whether this is the configured password of `root`."""
        return secrets.compare_digest(fingerprint(text), self._root_digest)

    def route(self, role: int, run: Run) -> Handler:
        """Return a handler that checks the caller's role and answers in the envelope."""

        async def handle(call: CompatCall) -> None:
            try:
                await self._check_calls(call)
                user = await self._caller(call)
            except ManagementError as error:
                await fail(call, str(error), status=error.status)
                return
            if user is None:
                return
            if user.role < role:
                await fail(call, "You do not have the required role for this operation.")
                return
            await self._answer(call, run, user)

        return handle

    def open_route(self, run: Callable[[CompatCall], Awaitable[Any]]) -> Handler:
        """Return a handler for a call that needs no credential."""

        async def ignoring(call: CompatCall, user: User) -> Any:
            await self._check_calls(call)
            return await run(call)

        async def handle(call: CompatCall) -> None:
            await self._answer(call, ignoring, _NO_USER)

        return handle

    async def _answer(self, call: CompatCall, run: Run, user: User) -> None:
        try:
            found = await run(call, user)
        except ManagementError as error:
            await fail(call, str(error), status=error.status)
        except (OptionError, ConfigurationError) as error:
            await fail(call, str(error))
        except NoSuchRowError:
            await fail(call, "record not found")
        except APIError as error:
            await fail(call, error.message)
        except StoreUnavailableError:
            await fail(call, "The store is not available at the moment. Try again.", status=503)
        else:
            if found is not None:
                await succeed(call, found)

    async def _caller(self, call: CompatCall) -> User | None:
        """Return the caller; None if the call was refused."""
        user = await self.session_user(call)
        if user is None:
            token = bearer_value(call)
            if not token:
                await fail(call, "Sign in first, or send a system access token.", status=401)
                return None
            user = await self.users.by_access_token(token)
            if user is None:
                await self.check_failures(call, 0)  # a guess of the password of root
                if self.is_root_password(token):
                    user = await self.users.find(ROOT_ID)
            if user is None:
                await self.check_failures(call, 1)
                await fail(call, "The access token is invalid.")
                return None
        if not user.enabled:
            await fail(call, "The user has been disabled.")
            return None
        return user

    async def check_failures(self, call: CompatCall, amount: int) -> None:
        """Count failed attempts of an address. Raises TooManyCallsError after too many."""
        account = f"oneapi.login:{_address(call)}"
        limit = RateLimit(account, "failures", _MAX_FAILURES, _FAILURE_SECONDS, amount)
        store = self.data.store
        if amount:
            await store.admit(secrets.token_hex(8), [limit])
        elif (await store.peek([limit]))[0].used >= _MAX_FAILURES:
            raise TooManyCallsError("Too many failed attempts from this address. Try again later.")

    async def _check_calls(self, call: CompatCall) -> None:
        """Count a call of an address. Raises TooManyCallsError after too many."""
        if not self._api_limit:
            return
        account = f"oneapi.calls:{_address(call)}"
        limit = RateLimit(account, "calls", self._api_limit, _CALL_SECONDS)
        if isinstance(await self.data.store.admit(secrets.token_hex(8), [limit]), Denied):
            raise TooManyCallsError("Too many calls from this address. Try again later.")

    async def session_user(self, call: CompatCall) -> User | None:
        """Return the user of the session cookie, if it is valid."""
        try:
            cookie = SimpleCookie(call.header("cookie")).get(SESSION_COOKIE)
        except CookieError:
            return None
        if cookie is None or not cookie.value:
            return None
        return await self.users.session_user(cookie.value)

    async def user(self, id: int) -> User:
        """Return a user. Raises NoSuchRowError."""
        return await self.users.get(id)


def _address(call: CompatCall) -> str:
    client = call.scope.get("client")
    return client[0] if client else "unknown"


_NO_USER = User(id=0, username="", role=0)
USER, ADMINISTRATOR, SUPERUSER = COMMON, ADMIN, ROOT


async def succeed(call: CompatCall, data: Any, headers: RawHeaders | None = None) -> None:
    """Answer with `data`; NO_DATA leaves it out."""
    body: dict[str, Any] = {"success": True, "message": ""}
    if not isinstance(data, NoData):
        body["data"] = data
    await call.json(body, headers=headers or [])


async def fail(call: CompatCall, message: str, *, status: int = 200) -> None:
    """Answer that the call has failed."""
    await call.json({"success": False, "message": message}, status)


def number(text: object, name: str = "id") -> int:
    """Return a number of a path, a query or a body. Raises ManagementError."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if isinstance(text, str) and text.removeprefix("-").isdecimal() and len(text) < 17:
        return int(text)
    raise ManagementError(f"{name}: must be a number.")


def query_number(call: CompatCall, name: str) -> int:
    """Return a number of the query, 0 if it is missing or invalid."""
    try:
        return number(call.query.get(name, "0") or "0", name)
    except ManagementError:
        return 0


def page_of(call: CompatCall, rows: Sequence[T]) -> list[T]:
    """Return the requested page (`p`, from 0) of rows in the order of their numbers, the newest
    first.
    """
    start = max(0, query_number(call, "p")) * PAGE_ROWS
    return list(reversed(rows))[start : start + PAGE_ROWS]


async def shown_page(
    call: CompatCall,
    rows: list[T],
    show: Callable[[list[T]], Awaitable[list[dict[str, Any]]]],
    orders: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the requested page of rows as `show` shows them.

    `orders` are the shown members that a client may name in `order`: then the largest come first.
    """
    order = call.query.get("order", "")
    if order not in orders:
        return await show(page_of(call, rows))
    return page_of(call, sorted(await show(rows), key=lambda row: row[order]))


def text_member(body: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a string of a body. Raises ManagementError for another type."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ManagementError(f"{name}: must be a string.")
    return value


def int_member(body: Mapping[str, Any], name: str, default: int = 0) -> int:
    """Return an integer of a body. Raises ManagementError for another type."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        raise ManagementError(f"{name}: must be an integer.")
    return value


def bool_member(body: Mapping[str, Any], name: str) -> bool:
    """Return a boolean of a body, False if it is missing. Raises ManagementError."""
    value = body.get(name, False)
    if value is not None and not isinstance(value, bool):
        raise ManagementError(f"{name}: must be true or false.")
    return bool(value)


def matches_keyword(keyword: str, id: int, *texts: str) -> bool:
    """Return whether a row is found by a keyword: its number, or the beginning of a text."""
    return keyword == str(id) or any(text.startswith(keyword) for text in texts)
