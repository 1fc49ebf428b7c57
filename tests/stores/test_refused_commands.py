"""Optional commands: the store works without them, or reports at once what it requires."""

from __future__ import annotations

import asyncio
import logging
import uuid
from urllib.parse import urlsplit

import pytest

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    Denied,
    RateLimit,
    StoreUnavailableError,
)
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.stores.redis.server_check import warnings
from tests.support.redis_proxy import How, RedisProxy
from tests.support.redis_server import server as started

pytestmark = pytest.mark.anyio

OPTIONAL = ("CLIENT", "SCRIPT", "EVALSHA", "PING", "CONFIG", "INFO", "HELLO", "PUBSUB", "COMMAND")


def port(url: str) -> int:
    found = urlsplit(url).port
    assert found is not None
    return found


async def used(store: RedisStore) -> None:
    """Every shape of the store, with small and large calls."""
    grants = [RateLimit("team", "rpm", 6), BudgetReservation("team", "usd", 10, 25)]
    found = [await store.admit(f"h{number}", grants) for number in range(3)]
    assert [type(each) for each in found] == [Admitted, Admitted, Denied]
    assert isinstance(found[0], Admitted)
    assert (await store.settle(found[0], {grants[1]: 3})).first
    rows: dict[str, bytes | None] = {f"{number}": b"x" for number in range(700)}
    assert not await store.put_many("t", rows)
    assert len(await store.rows("t")) == 700
    assert await store.add("day", {"n": 2}) == {"n": 2}
    assert await store.hold("pool", "k", 60)
    assert list(await store.holds("pool")) == ["k"]
    await store.append("log", b"1")
    assert [record for _, record in await store.read("log")] == [b"1"]
    changed = asyncio.Event()
    stop = store.watch("t", changed.set)
    await changed.wait()
    stop()


@pytest.mark.parametrize("how", ["error", "no permission"])
@pytest.mark.parametrize("refused", [*((name,) for name in OPTIONAL), OPTIONAL], ids=str)
async def test_a_store_works_where_optional_commands_are_refused(
    redis_url: str, prefix: str, refused: tuple[str, ...], how: How
) -> None:
    async with (
        RedisProxy(port(redis_url), refused=refused, how=how) as proxy,
        RedisStore(proxy.url, prefix=prefix, timeout=5) as store,
    ):
        await used(store)


@pytest.mark.parametrize(
    "refused", [("CLIENT",), ("SCRIPT",), ("CLIENT", "SCRIPT", "HELLO")], ids=str
)
async def test_a_store_works_where_optional_commands_end_the_connection(
    redis_url: str, prefix: str, refused: tuple[str, ...]
) -> None:
    async with (
        RedisProxy(port(redis_url), refused=refused, how="hang up") as proxy,
        RedisStore(proxy.url, prefix=prefix, timeout=5) as store,
    ):
        await used(store)
        proxy.commands.clear()
        await store.aclose()
        await store.get("t", "k")
        assert proxy.commands == ["GET", "HGET"]  # what was refused is not tried again


async def test_temporarily_refused_commands_are_used_again(redis_url: str, prefix: str) -> None:
    async with (
        RedisProxy(port(redis_url)) as proxy,
        RedisStore(proxy.url, prefix=prefix, timeout=5) as store,
    ):
        await used(store)
    assert {"CLIENT", "SCRIPT", "EVALSHA"} <= set(proxy.commands)
    assert not {"HELLO", "PUBSUB", "SUBSCRIBE"} & set(proxy.commands)


async def test_a_server_without_scripts_is_refused_at_the_start(
    redis_url: str, prefix: str
) -> None:
    async with RedisProxy(port(redis_url), refused=("EVAL", "EVALSHA", "SCRIPT")) as proxy:
        store = RedisStore(proxy.url, prefix=prefix, timeout=5)
        with pytest.raises(ConfigurationError, match=r"refuses EVAL .* allow the commands EVAL"):
            await store.__aenter__()
        await store.aclose()


# ── replies that are not what a command returns ──────────────────────────────

GARBAGE = [b"+garbage\r\n", b"$-1\r\n", b":-7\r\n", b"*0\r\n", b"*3\r\n:1\r\n$1\r\nx\r\n*0\r\n"]
GARBAGE += [b"$4\r\n\xff\xfe{}\r\n", b"*-1\r\n", b"+\r\n"]


@pytest.mark.parametrize("reply", GARBAGE, ids=repr)
async def test_a_reply_of_another_type_makes_the_store_unavailable(
    redis_url: str, prefix: str, reply: bytes
) -> None:
    calls = [
        lambda store: store.admit("h", [RateLimit("a", "n", 1)]),
        lambda store: store.peek([RateLimit("a", "n", 1)]),
        lambda store: store.rows("t", ["a", "b"]),
        lambda store: store.page("t"),
        lambda store: store.get("t", "a"),
        lambda store: store.put("t", "k", b"1"),
        lambda store: store.add("day", {"n": 1, "m": 1}),
        lambda store: store.sums("day", ["n", "m"]),
        lambda store: store.holds("pool"),
        lambda store: store.read("log"),
        lambda store: store.version("t"),
    ]
    async with RedisProxy(port(redis_url)) as proxy:
        store = RedisStore(proxy.url, prefix=prefix, timeout=5)
        await store.get("t", "a")
        proxy.falsify = lambda command, true: reply
        for call in calls:
            try:
                await call(store)
            except StoreUnavailableError:
                pass  # that, or a result of the right type, is all there may be
        await store.aclose()


async def test_the_change_poller_logs_invalid_replies_and_continues(
    redis_url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        RedisProxy(port(redis_url)) as proxy,
        RedisStore(proxy.url, prefix=prefix, timeout=5) as store,
    ):
        changed = asyncio.Event()
        stop = store.watch("tokens", changed.set)
        await changed.wait()
        for garbage in GARBAGE:
            proxy.commands.clear()
            proxy.falsify = lambda command, true, fake=garbage: (  # type: ignore[misc]
                fake if command[0] == b"GET" else true
            )
            async with asyncio.timeout(20):
                while proxy.commands.count("GET") < 3:
                    await asyncio.sleep(0.02)
        proxy.falsify = lambda command, true: true
        changed.clear()
        async with RedisStore(redis_url, prefix=prefix, timeout=5) as other:
            await other.put("tokens", "k", b"1")
        async with asyncio.timeout(20):
            await changed.wait()
        stop()
    assert "changes in the store cannot be seen: Redis: an unexpected reply" in caplog.text
    assert "working again" in caplog.text


async def test_invalid_replies_cost_a_connection_only(redis_url: str, prefix: str) -> None:
    async with (
        RedisProxy(port(redis_url)) as proxy,
        RedisStore(proxy.url, prefix=prefix, timeout=2) as store,
    ):
        changed = asyncio.Event()
        stop = store.watch("tokens", changed.set)
        await changed.wait()
        proxy.falsify = lambda command, true: b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with pytest.raises(StoreUnavailableError):
            await store.get("t", "k")
        proxy.falsify = lambda command, true: true
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.put("tokens", "k", b"1")
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
            changed.clear()
            await store.put("tokens", "k", b"2")
            await changed.wait()
        stop()


# ── settings that lose what is stored ────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--appendonly", "no", "--save", ""), ["keeps nothing on disk"]),
        (("--appendonly", "yes"), []),
        (("--appendonly", "no", "--save", "60 1000"), []),
        (
            ("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
            ["evicts keys"],
        ),
        (("--appendonly", "yes", "--maxmemory", "100mb"), []),
        (("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"), []),
    ],
    ids=str,
)
async def test_a_server_that_may_lose_budgets_causes_a_warning_at_the_start(
    arguments: tuple[str, ...], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with started(*arguments) as server:
        async with RedisStore(server.url, prefix=uuid.uuid4().hex, timeout=5):
            found = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
            assert len(found) == len(said), found
            for message, part in zip(found, said, strict=True):
                assert part in message
                assert "docs/workers.md" in message


async def test_an_eviction_policy_is_found_by_info_if_config_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl")
    with started(*policy) as server:
        async with (
            RedisProxy(server.port, refused=("CONFIG",)) as proxy,
            RedisStore(proxy.url, timeout=5),
        ):
            assert "maxmemory-policy volatile-ttl" in caplog.text
            assert "on disk" not in caplog.text  # the cause is unknown


def test_unknown_settings_cause_no_warning() -> None:
    assert warnings({}) == []
    assert warnings({"appendonly": "no"}) == []
    assert warnings({"maxmemory-policy": "allkeys-lru"}) == []


async def test_an_unavailable_server_at_the_start_is_logged_and_not_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with RedisStore("redis://127.0.0.1:1/0", timeout=1):
        assert "the store is unavailable" in caplog.text
