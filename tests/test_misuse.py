"""Invalid arguments are reported when an object is built, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy import (
    AdminApp,
    Authenticate,
    Budget,
    ConfigurationError,
    InjectKey,
    KeyPool,
    Ledger,
    Limits,
    MemoryStore,
    OpenAIShim,
    PassthroughProxy,
    Principal,
    Quota,
    Timeouts,
    Tokens,
    UsageRecord,
    lifespan,
)
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi

ROW = OPENAI.using("sk-1")


class Middleware:
    """A middleware of the host, around an app of this package."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def plain_sink(record: UsageRecord) -> None:
    pass


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "an app without a way to open it": (
        lambda: lifespan(Middleware(OpenAIShim(ROW))),
        r"cannot open Middleware.*lifespan\(ai\)",
    ),
    "an unknown period": (lambda: Budget.usd(1, "weekly"), "'total', 'hour', 'day'"),  # type: ignore[arg-type]
    "an unknown unit": (lambda: Budget(1, unit="eur"), "'usd', 'units'"),  # type: ignore[arg-type]
    "one budget without a list": (
        lambda: Limits(budgets=Budget.usd(1)),  # type: ignore[arg-type]
        r"budgets=\[Budget.usd\(25\)\]",
    ),
    "an empty list of keys": (lambda: OPENAI.using([]), "openai: the list of keys is empty"),
    "no sink": (lambda: OpenAIShim(ROW, record=None), "Leave record= out"),  # type: ignore[arg-type]
    "a sink that cannot be awaited": (
        lambda: OpenAIShim(ROW, record=plain_sink),  # type: ignore[arg-type]
        "async function .* not a plain function",
    ),
    "a number of seconds": (
        lambda: OpenAIShim(ROW, timeouts=30),  # type: ignore[arg-type]
        r"Timeouts\(first=30\), not 30",
    ),
    "a number of seconds, for the proxy": (
        lambda: PassthroughProxy(ROW, timeouts=30),  # type: ignore[arg-type]
        r"Timeouts\(first=30\), not 30",
    ),
    "an address where a store goes, for Quota": (
        lambda: Quota(OpenAIShim(ROW), store="redis://x"),  # type: ignore[arg-type]
        r"Quota: store= must be a store, as in RedisStore\('redis://...'\)",
    ),
    "an address where a store goes, for Ledger": (
        lambda: Ledger("redis://x"),  # type: ignore[arg-type]
        "Ledger: store= must be a store",
    ),
    "an address where a store goes, for Tokens": (
        lambda: Tokens("redis://x"),  # type: ignore[arg-type]
        "Tokens: store= must be a store",
    ),
    "an address where a store goes, for AdminApp": (
        lambda: AdminApp(store="redis://x", token="t" * 32),  # type: ignore[arg-type,call-arg]
        "AdminApp: store= must be a store",
    ),
    "an address where a store goes, for KeyPool": (
        lambda: KeyPool(["k"], name="n", store="redis://x"),  # type: ignore[arg-type]
        "store= must be a store",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_mistake_is_found_when_the_object_is_built(name: str) -> None:
    build, words = WRONG[name]
    with pytest.raises(ConfigurationError, match=words):
        build()


def test_valid_arguments_are_accepted() -> None:
    store = MemoryStore()
    app = OpenAIShim(ROW, timeouts=Timeouts(first=30), record=Ledger(store))
    limits = Limits(budgets=(Budget.usd(1, "day"), Budget.units(5)))
    Quota(app, store=store, limits=Limits(rpm=limits.rpm))
    InjectKey(app, pool=KeyPool(["k"]))
    lifespan(app, store)
    assert OPENAI.using().keys is None  # servers of one's own often need none


@pytest.mark.anyio
async def test_a_name_is_not_a_principal_and_the_message_says_how_to_make_one() -> None:
    app = Authenticate(OpenAIShim(ROW), identify=lambda scope: "user-1")  # type: ignore[arg-type,return-value]
    with pytest.raises(
        ConfigurationError, match=r"returned str\. To convert a name, use Principal\(user_id\)"
    ):
        await asgi.chat(app)
    known = Authenticate(OpenAIShim(ROW), identify=lambda scope: Principal("user-1"))
    assert (await asgi.request(known, "GET", "/nothing")).status == 404
