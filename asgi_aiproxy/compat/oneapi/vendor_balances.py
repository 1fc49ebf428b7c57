"""What is left of the credit of a channel, from vendors that document how to read it with a key.

Formats: https://api-docs.deepseek.com/api/get-user-balance,
https://platform.moonshot.ai/docs/api/balance, https://openrouter.ai/docs/api/api-reference/credits
(which needs a management key), and the two billing paths that One API itself answers, for channels
that lead to another One API. OpenAI does not answer them for API keys since July 2023.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from asgi_aiproxy._cancellation import Deadline
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.providers import Provider
from asgi_aiproxy.upstream.base import Transport, fetch

_SECONDS = 30.0
_MAX_ANSWER = 1024 * 1024
_OPENAI, _CUSTOM, _OPENROUTER, _MOONSHOT, _DEEPSEEK = 1, 8, 20, 25, 36
_OPENAI_HOST = "https://api.openai.com/"
_UNKNOWN_FORM = "The vendor's answer is not the documented one."
_DAYS = 100  # of usage, as One API requests it


class BalanceError(Exception):
    """The balance cannot be read; the message says why."""


class _Deepseek(msgspec.Struct):
    class Info(msgspec.Struct):
        currency: str
        total_balance: float  # sent as a string

    balance_infos: list[Info]


class _Moonshot(msgspec.Struct):
    class Data(msgspec.Struct):
        available_balance: float

    data: Data


class _Openrouter(msgspec.Struct):
    class Data(msgspec.Struct):
        total_credits: float
        total_usage: float

    data: Data


class _Subscription(msgspec.Struct):
    hard_limit_usd: float


class _Usage(msgspec.Struct):
    total_usage: float  # in hundredths


Answer = TypeVar("Answer", bound=msgspec.Struct)


class _Vendor:
    """One channel whose balance is read."""

    def __init__(self, provider: Provider, transport: Transport, now: float) -> None:
        self._provider = provider
        self._transport = transport
        self._today = datetime.fromtimestamp(now, UTC).date()

    async def _get(self, path: str, type: type[Answer], query: str = "") -> Answer:
        provider = self._provider
        pool = provider.keys
        key = next(iter(pool.keys.values())) if pool is not None else None
        try:
            key = await provider.with_credential(key)
            draft = ProviderRequest(path, {}, query)
            request = provider.request("GET", draft, key, streamed=False)
            with Deadline(_SECONDS, f"no answer within {_SECONDS:g} s"):
                status, body = await fetch(self._transport, request, _MAX_ANSWER)
        except APIError as error:
            raise BalanceError(error.message) from error
        if status != 200:
            message = provider.dialect.decode_error(status, body).message
            raise BalanceError(f"The vendor answered with status {status}: {message}")
        try:
            return msgspec.json.decode(body, type=type, strict=False)
        except msgspec.DecodeError as error:
            raise BalanceError(_UNKNOWN_FORM) from error

    async def deepseek(self) -> float:
        infos = (await self._get("/user/balance", _Deepseek)).balance_infos
        if not infos:
            raise BalanceError(_UNKNOWN_FORM)
        amounts = {info.currency: info.total_balance for info in infos}
        return amounts.get("USD", infos[0].total_balance)

    async def moonshot(self) -> float:
        return (await self._get("/users/me/balance", _Moonshot)).data.available_balance

    async def openrouter(self) -> float:
        found = (await self._get("/credits", _Openrouter)).data
        return found.total_credits - found.total_usage

    async def oneapi(self) -> float:
        path = "/dashboard/billing"
        limit = (await self._get(f"{path}/subscription", _Subscription)).hard_limit_usd
        since = self._today - timedelta(days=_DAYS)
        query = f"start_date={since}&end_date={self._today}"
        return limit - (await self._get(f"{path}/usage", _Usage, query)).total_usage / 100


_READERS: dict[int, Callable[[_Vendor], Awaitable[float]]] = {
    _OPENAI: _Vendor.oneapi,
    _CUSTOM: _Vendor.oneapi,
    _OPENROUTER: _Vendor.openrouter,
    _MOONSHOT: _Vendor.moonshot,
    _DEEPSEEK: _Vendor.deepseek,
}
READABLE_TYPES = frozenset(_READERS)


async def read_balance(type: int, provider: Provider, transport: Transport, now: float) -> float:
    """Return what is left of the credit of a channel, in the currency of its vendor.

    Arguments:

    - `type`, `provider`: the channel.
    - `transport`: sends the requests.
    - `now`: the Unix time in seconds.

    Raises BalanceError.
    """
    reader = _READERS.get(type)
    if reader is None or provider.base_url.startswith(_OPENAI_HOST):
        raise BalanceError(
            "This vendor does not report the balance of an API key over its API. Look it up in the "
            "vendor's console."
        )
    return await reader(_Vendor(provider, transport, now))
