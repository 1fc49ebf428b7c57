"""Vouchers are redeemed exactly once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.accounts import Account, NoSuchRowError, Tokens, VoucherError, Vouchers
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.stores import MemoryStore, Store, StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore

pytestmark = pytest.mark.anyio

EMPTY = Limits(budgets=(Budget(0), Budget(7, "day"), Budget.units(0)))


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("redis_url")
    async with RedisStore(url, prefix=f"test-{uuid.uuid4().hex}", timeout=5.0) as made:
        yield made


async def limit(tokens: Tokens, id: str, number: int = 0) -> int:
    return (await tokens.get(id)).limits.budgets[number].limit


async def test_a_voucher_fills_the_budget_of_a_token_once(store: Store) -> None:
    tokens, vouchers = Tokens(store), Vouchers(store)
    _, token = await tokens.issue(limits=EMPTY)
    first, second = await vouchers.create(2, 5_000_000, name="spring")
    redeemed = await vouchers.redeem(first, "token", token.id)
    assert (redeemed.done, redeemed.redeemed_by) == (True, f"token/{token.id}")
    assert [await limit(tokens, token.id, n) for n in range(3)] == [5_000_000, 7, 0]
    with pytest.raises(VoucherError, match="already been redeemed"):
        await vouchers.redeem(first, "token", token.id)
    await vouchers.redeem(second, "token", token.id)
    assert await limit(tokens, token.id) == 10_000_000
    assert (await tokens.get(token.id)).pending_vouchers == ()


async def test_an_account_can_be_filled_and_so_can_a_budget_in_units(store: Store) -> None:
    tokens, vouchers = Tokens(store), Vouchers(store)
    budgets = (Budget(1, shared=True), Budget.units(2, shared=True))
    await tokens.accounts.create("acme", Account(id="acme", budgets=budgets))
    (dollars,) = await vouchers.create(1, 10)
    (units,) = await vouchers.create(1, 20, unit="units")
    await vouchers.redeem(dollars, "account", "acme")
    await vouchers.redeem(units, "account", "acme")
    account = await tokens.accounts.get("acme")
    assert [budget.limit for budget in account.budgets] == [11, 22]
    assert account.pending_vouchers == ()


async def test_of_many_concurrent_redemptions_one_is_paid(store: Store) -> None:
    tokens, vouchers = Tokens(store), Vouchers(store)
    made = [(await tokens.issue(limits=EMPTY))[1].id for _ in range(5)]
    (code,) = await vouchers.create(1, 100)
    results = await asyncio.gather(
        *(vouchers.redeem(code, "token", id) for id in made * 10), return_exceptions=True
    )
    assert {type(result).__name__ for result in results} <= {"Voucher", "VoucherError"}
    assert sum([await limit(tokens, id) for id in made]) == 100


class Faulty(MemoryStore):
    """Fails at its n-th write: before it is done, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1
        self.late = False

    async def put_many(self, *args: Any, **options: Any) -> list[str]:
        if args[0] == "groups":
            return await super().put_many(*args, **options)
        self.left -= 1
        if self.left == 0 and not self.late:
            raise StoreUnavailableError("away")
        done = await super().put_many(*args, **options)
        if self.left == 0:
            raise StoreUnavailableError("away")
        return done


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_an_interrupted_redemption_can_be_continued_and_pays_once(
    at: int, late: bool
) -> None:
    store = Faulty()
    tokens, vouchers = Tokens(store), Vouchers(store)
    _, token = await tokens.issue(limits=EMPTY)
    _, other = await tokens.issue(limits=EMPTY)
    (code,) = await vouchers.create(1, 100)
    store.left, store.late = at, late
    with pytest.raises(StoreUnavailableError):
        await vouchers.redeem(code, "token", token.id)
    if at > 1 or late:  # it was claimed
        with pytest.raises(VoucherError, match="already been redeemed"):
            await vouchers.redeem(code, "token", other.id)
    for _ in range(3):
        with suppress(VoucherError):
            await vouchers.redeem(code, "token", token.id)
    assert (await limit(tokens, token.id), await limit(tokens, other.id)) == (100, 0)


class Stepping(MemoryStore):
    """Yields before each step, so that concurrent redemptions interleave."""

    def __init__(self, turns: list[int]) -> None:
        super().__init__()
        self.turns = turns

    async def _step(self) -> None:
        for _ in range(self.turns.pop() if self.turns else 0):
            await asyncio.sleep(0)

    async def get(self, table: str, key: str) -> bytes | None:
        await self._step()
        return await super().get(table, key)

    async def put_many(self, *args: Any, **options: Any) -> list[str]:
        await self._step()
        return await super().put_many(*args, **options)


@pytest.mark.parametrize("seed", range(150))
async def test_interleaved_redemptions_pay_once(seed: int) -> None:
    import random

    draw = random.Random(seed)
    store = Stepping([])
    tokens, vouchers = Tokens(store), Vouchers(store)
    _, token = await tokens.issue(limits=EMPTY)
    (code,) = await vouchers.create(1, 100)
    store.turns = [draw.randrange(12) for _ in range(200)]
    await asyncio.gather(
        *(vouchers.redeem(code, "token", token.id) for _ in range(3)), return_exceptions=True
    )
    store.turns = []
    with pytest.raises(VoucherError):
        await vouchers.redeem(code, "token", token.id)
    assert await limit(tokens, token.id) == 100


async def test_codes_are_readable_and_their_secret_is_not_stored(store: Store) -> None:
    tokens, vouchers = Tokens(store), Vouchers(store)
    _, token = await tokens.issue(limits=EMPTY)
    codes = await vouchers.create(50, 1, name="lot")
    assert len(set(codes)) == 50
    assert {tuple(map(len, code.split("-"))) for code in codes} == {(6, 6, 6, 6)}
    rows = [row async for row in vouchers.export("lot")]
    assert len(rows) == 50
    kept = msgspec.json.encode(rows).decode()
    assert not any(code.replace("-", "")[8:] in kept for code in codes)
    written = f" {codes[0].lower().replace('0', 'o').replace('1', 'l').replace('-', ' ')} "
    await vouchers.redeem(written, "token", token.id)
    assert await limit(tokens, token.id) == 1


async def test_an_error_gives_the_reason_why_a_voucher_is_refused() -> None:
    now = [1_700_000_000.0]
    store = MemoryStore()
    tokens, vouchers = Tokens(store), Vouchers(store, clock=lambda: now[0])
    _, token = await tokens.issue(limits=EMPTY)
    _, poor = await tokens.issue()
    good, off, old = await vouchers.create(3, 1, expires=now[0] + 10)

    async def fails(code: str, words: str, id: str = token.id) -> None:
        with pytest.raises(VoucherError, match=words):
            await vouchers.redeem(code, "token", id)

    await vouchers.enable(off.replace("-", "")[:8], False)
    await fails(off, "disabled")
    await fails(good[:-1] + ("A" if good[-1] != "A" else "B"), "code is invalid")
    await fails("", "code is invalid")
    await fails(good, "no total budget in usd", poor.id)
    with pytest.raises(NoSuchRowError):
        await vouchers.redeem(good, "token", "nobody")
    await vouchers.redeem(good, "token", token.id)  # nothing of that has used it up
    now[0] += 10
    await fails(old, "expired")
    await vouchers.enable(off.replace("-", "")[:8])
    await fails(off, "expired")
    assert await limit(tokens, token.id) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda v: v.create(0, 1), "1 to 100000"),
        (lambda v: v.create(10**9, 1), "1 to 100000"),
        (lambda v: v.create(1, 0), "at least 1"),
        (lambda v: v.create(1, -5), "at least 1"),
        (lambda v: v.create(1, 1, unit="eur"), "at least 1"),
        (lambda v: v.create(1, 1, expires=5.0), "in the future"),
    ],
)
async def test_invalid_vouchers_are_not_created(make: Callable[[Any], Any], words: str) -> None:
    store = MemoryStore()
    with pytest.raises(ConfigurationError, match=words):
        await make(Vouchers(store))
    assert await store.rows("vouchers") == {}


async def test_thousands_of_vouchers_are_created_at_once(store: Store) -> None:
    vouchers = Vouchers(store)
    await vouchers.create(2500, 1, name="many")
    await vouchers.create(3, 1, name="few")
    assert len([row async for row in vouchers.export("many")]) == 2500
    assert len([row async for row in vouchers.export()]) == 2503
