from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores import (
    Admitted,
    BudgetReservation,
    ConcurrencySlot,
    Denied,
    Grant,
    NotOnHold,
    RateLimit,
    Store,
    UsageLevel,
)

pytestmark = pytest.mark.anyio

Elapse = Callable[[float], Awaitable[None]]

SLOT = ConcurrencySlot("team", "calls", 2)
RPM = RateLimit("team", "rpm", 3)
BUDGET = BudgetReservation("team", "usd", 10, 25)


async def given(store: Store, holder: str, *grants: Grant, ttl: float = 60.0) -> Admitted:
    found = await store.admit(holder, grants, ttl=ttl)
    assert isinstance(found, Admitted), found
    return found


async def refused(store: Store, holder: str, *grants: Grant) -> Denied:
    found = await store.admit(holder, grants)
    assert isinstance(found, Denied), found
    return found


# together


async def test_all_is_granted_and_the_remainder_is_reported(store: Store) -> None:
    first = await given(store, "a", SLOT, RPM, BUDGET)
    assert first.left == (1, 2, 15)
    assert first.holder == "a"
    assert first.choice == -1
    second = await given(store, "b", ConcurrencySlot("team", "calls", None), RPM, BUDGET)
    assert second.left == (None, 1, 5)


@pytest.mark.parametrize("last", [SLOT, RPM, BUDGET, NotOnHold("team", "key")])
async def test_nothing_is_reserved_if_one_grant_is_denied(store: Store, last: Grant) -> None:
    await store.hold("team", "key", 60)
    for holder in "abc":
        await store.admit(holder, [last])
    free = [
        ConcurrencySlot("team", "free", 1),
        RateLimit("team", "free", 1),
        BudgetReservation("team", "free", 1, 1),
    ]
    no = await refused(store, "x", *free, last)
    assert no.grant == last
    assert [level.used + level.held for level in await store.peek(free)] == [0, 0, 0]


async def test_the_first_exhausted_grant_and_the_longest_wait_are_reported(store: Store) -> None:
    await given(store, "a", SLOT)
    await given(store, "b", SLOT)
    await store.hold("team", "near", 30)
    await store.hold("team", "far", 90)
    no = await refused(store, "c", SLOT, NotOnHold("team", "near"), NotOnHold("team", "far"))
    assert (no.grant, no.left) == (SLOT, 0)
    assert no.retry_after == pytest.approx(90, abs=5)
    assert (await refused(store, "c", SLOT)).retry_after is None


async def test_grants_of_several_accounts_are_admitted_together_or_not_at_all(store: Store) -> None:
    group = BudgetReservation("group", "usd", 10, 15)
    own = [ConcurrencySlot(f"member-{n}", "calls", 1) for n in range(20)]
    got = await given(store, "a", own[0], group, own[1])
    assert got.grants == (own[0], group, own[1])
    assert got.left == (0, 5, 0)
    no = await refused(store, "b", own[2], group, own[3])
    assert (no.grant, no.left) == (group, 5)
    assert await store.peek([*own[:4], group]) == [
        UsageLevel(1), UsageLevel(1), UsageLevel(0), UsageLevel(0), UsageLevel(0, 10)
    ]  # fmt: skip
    assert (await store.settle(got, {group: 4})).spent == {group: 4}
    assert await store.peek([own[0], group]) == [UsageLevel(0), UsageLevel(4)]


async def test_the_first_choice_that_can_be_admitted_is_taken(store: Store) -> None:
    keys = [[NotOnHold("pool", f"k{n}"), ConcurrencySlot("pool", f"k{n}", 1)] for n in range(4)]
    await store.hold("pool", "k1", 60)
    first = await store.admit("a", [RPM], one_of=keys)
    assert isinstance(first, Admitted)
    assert (first.choice, first.grants) == (0, (RPM, *keys[0]))
    assert first.left == (2, None, 0)
    second = await store.admit("b", [RPM], one_of=keys)
    assert isinstance(second, Admitted)
    assert second.choice == 2
    third = await store.admit("c", [], one_of=keys)
    assert isinstance(third, Admitted)
    assert third.choice == 3
    no = await store.admit("d", [RPM], one_of=keys)
    assert isinstance(no, Denied)
    assert no.retry_after == pytest.approx(60, abs=5)  # k1 is the first that will do
    assert await store.peek([RPM]) == [UsageLevel(2)]


async def test_choices_may_lie_in_several_accounts(store: Store) -> None:
    pools = [[ConcurrencySlot(f"pool-{n}", "k", 1)] for n in range(3)]
    for number in range(3):
        got = await store.admit(f"{number}", [ConcurrencySlot("me", "c", 3)], one_of=pools)
        assert isinstance(got, Admitted)
        assert got.choice == number
        assert got.grants == (ConcurrencySlot("me", "c", 3), *pools[number])
    no = await store.admit("x", [ConcurrencySlot("you", "c", 3)], one_of=pools)
    assert isinstance(no, Denied)
    assert await store.peek([ConcurrencySlot("you", "c", 3), ConcurrencySlot("me", "c", 3)]) == [
        UsageLevel(0),
        UsageLevel(3),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda store: store.admit("", [SLOT]),
        lambda store: store.admit("a", [SLOT], ttl=0),
        lambda store: store.admit("a", [SLOT, SLOT]),
        lambda store: store.admit("a", [RPM, RateLimit("team", "rpm", 9)]),
        lambda store: store.admit("a", [SLOT], one_of=[[ConcurrencySlot("team", "calls", 9)]]),
        lambda store: store.admit("a", [BudgetReservation("team", "usd", -1, 5)]),
        lambda store: store.admit("a", [SLOT], one_of=[[RateLimit("team", "rpm", 5, amount=-1)]]),
    ],
)
async def test_invalid_arguments_are_reported(
    store: Store, wrong: Callable[[Store], Awaitable[object]]
) -> None:
    with pytest.raises(ConfigurationError):
        await wrong(store)
    assert (
        await store.peek([SLOT, RPM, BudgetReservation("team", "usd", 0, 5)]) == [UsageLevel(0)] * 3
    )


async def test_grants_of_several_accounts_are_renewed_together(
    store: Store, elapse: Elapse
) -> None:
    group, own = BudgetReservation("group", "usd", 10, 15), ConcurrencySlot("member", "calls", 1)
    got = await given(store, "a", own, group, RateLimit("group", "rpm", 5), ttl=0.5)
    assert await store.renew(got, 60)
    await elapse(0.6)
    assert await store.peek([own, group]) == [UsageLevel(1), UsageLevel(0, 10)]
    assert await store.renew(got, 0.2)
    await elapse(0.3)
    assert not await store.renew(got, 60)


async def test_there_is_nothing_to_renew_or_settle_of_counts_and_holds(store: Store) -> None:
    got = await given(store, "a", RPM, NotOnHold("team", "key"))
    assert await store.renew(got, 60)
    assert not (await store.settle(got)).first
    nothing = await given(store, "b")
    assert await store.renew(nothing, 60)
    assert (await store.settle(nothing)).spent == {}
    assert await store.peek([]) == []


# counts


async def test_a_limit_admits_its_number_in_a_window_and_no_more(
    store: Store, elapse: Elapse
) -> None:
    count = RateLimit("team", "rps", 3, window=1.0)
    for _ in range(3):
        await given(store, "a", count)
    no = await refused(store, "a", count)
    assert no.left == 0
    assert no.retry_after is not None
    assert 0.5 < no.retry_after <= 1.05
    await elapse(no.retry_after)
    assert (await given(store, "a", count)).left[0] is not None


async def test_a_window_slides(store: Store, elapse: Elapse) -> None:
    """Half a window after two of three, one is left; two more once the first two have left the
    window.
    """
    count = RateLimit("team", "rps", 3, window=2.0)
    await given(store, "a", count)
    await given(store, "a", count)
    await elapse(1.2)
    await given(store, "a", count)
    await refused(store, "a", count)
    await elapse(0.95)
    assert (await given(store, "a", count)).left == (1,)


async def test_amounts_count(store: Store) -> None:
    def tokens(amount: int) -> RateLimit:
        return RateLimit("team", "tpm", 1000, amount=amount)

    assert (await given(store, "a", tokens(900))).left == (100,)
    no = await refused(store, "b", tokens(101))
    assert no.left == 100
    assert no.retry_after == pytest.approx(60, abs=4)
    assert (await refused(store, "b", tokens(1001))).retry_after is None  # it never fits
    assert (await given(store, "b", tokens(100))).left == (0,)
    assert (await given(store, "c", tokens(0))).left == (0,)


async def test_a_count_is_corrected_once_when_it_is_known(store: Store) -> None:
    tokens = RateLimit("team", "tpm", 1000, amount=600)
    first = await given(store, "a", tokens)
    for _ in range(3):
        await store.settle(first, {tokens: 100})
    assert await store.peek([tokens]) == [UsageLevel(100)]
    second = await given(store, "b", tokens)
    for _ in range(3):
        await store.settle(second, {tokens: 900})
    assert await store.peek([tokens]) == [UsageLevel(1000)]


async def test_a_use_of_the_reserved_amount_needs_no_correction(store: Store) -> None:
    first = await given(store, "a", RPM)
    await store.settle(first)
    await store.settle(first, {RPM: 1})
    assert await store.peek([RPM]) == [UsageLevel(1)]


# slots


async def test_a_slot_is_free_again_when_its_holder_settles(store: Store, other: Store) -> None:
    first = await given(store, "a", SLOT)
    await given(other, "b", SLOT)
    assert (await refused(other, "c", SLOT)).left == 0
    assert (await store.settle(first)).first
    assert not (await other.settle(first)).first
    assert (await given(other, "c", SLOT)).left == (0,)


async def test_a_slot_is_free_again_when_its_holder_died(store: Store, elapse: Elapse) -> None:
    await given(store, "a", SLOT, ttl=0.3)
    await given(store, "b", SLOT)
    await elapse(0.3)
    assert await store.peek([SLOT]) == [UsageLevel(1)]
    await given(store, "c", SLOT)
    await refused(store, "d", SLOT)


async def test_a_holder_keeps_what_it_renews(store: Store, elapse: Elapse) -> None:
    got = await given(store, "a", SLOT, RPM, BUDGET, ttl=0.5)
    assert await store.renew(got, 60)
    await elapse(0.6)
    assert await store.peek([SLOT, BUDGET]) == [UsageLevel(1), UsageLevel(0, 10)]
    assert await store.renew(got, 0.1)
    await elapse(0.2)
    assert not await store.renew(got, 60)
    assert await store.peek([SLOT]) == [UsageLevel(0)]


async def test_a_holder_has_one_slot_however_often_it_is_admitted(store: Store) -> None:
    for _ in range(3):
        assert (await given(store, "a", SLOT)).left == (1,)
    assert await store.peek([SLOT]) == [UsageLevel(1)]


# budgets


async def test_reservations_never_exceed_a_budget(store: Store) -> None:
    await given(store, "a", BUDGET)
    await given(store, "b", BUDGET)
    no = await refused(store, "c", BUDGET)
    assert (no.left, no.retry_after) == (5, None)
    assert (await given(store, "c", BudgetReservation("team", "usd", 5, 25))).left == (0,)


async def test_the_unused_part_of_a_reservation_is_given_back(store: Store) -> None:
    first = await given(store, "a", BUDGET)
    await given(store, "b", BUDGET)
    assert await store.settle(first, {BUDGET: 3}) == await settled(store, first, 3)
    assert await store.peek([BUDGET]) == [UsageLevel(3, 10)]
    assert (await given(store, "c", BUDGET)).left == (2,)


async def settled(store: Store, admitted: Admitted, spent: int) -> object:
    again = await store.settle(admitted, {BUDGET: 99})
    assert not again.first
    assert again.spent == {BUDGET: spent}
    return type(again)(first=True, spent={BUDGET: spent})


async def test_an_underestimated_amount_is_charged_in_full(store: Store) -> None:
    first = await given(store, "a", BUDGET)
    assert (await store.settle(first, {BUDGET: 40})).spent == {BUDGET: 40}
    assert (await refused(store, "b", BudgetReservation("team", "usd", 1, 25))).left == 0


async def test_a_settlement_without_an_amount_charges_the_reservation(store: Store) -> None:
    assert (await store.settle(await given(store, "a", BUDGET))).spent == {BUDGET: 10}


async def test_a_reservation_of_a_worker_that_died_is_charged(store: Store, elapse: Elapse) -> None:
    got = await given(store, "a", BUDGET, ttl=0.2)
    await elapse(0.3)
    assert await store.peek([BUDGET]) == [UsageLevel(10, 0)]
    late = await store.settle(got, {BUDGET: 4})
    assert late.first
    assert late.spent == {BUDGET: 4}
    assert not (await store.settle(got, {BUDGET: 9})).first
    assert await store.peek([BUDGET]) == [UsageLevel(4, 0)]


async def test_a_reservation_may_be_released_when_it_expires(store: Store, elapse: Elapse) -> None:
    budget = BudgetReservation("team", "usd", 10, 25, on_expiry="release")
    got = await given(store, "a", budget, ttl=0.2)
    await elapse(0.3)
    assert await store.peek([budget]) == [UsageLevel(0, 0)]
    assert (await store.settle(got, {budget: 4})).spent == {budget: 4}


async def test_settling_after_expiry_counts_even_if_no_call_came_between(
    store: Store, elapse: Elapse
) -> None:
    got = await given(store, "a", BUDGET, ttl=0.1)
    await elapse(0.3)
    assert (await store.settle(got, {BUDGET: 4})).spent == {BUDGET: 4}
    assert await store.peek([BUDGET]) == [UsageLevel(4, 0)]


async def test_large_amounts_stay_exact(store: Store) -> None:
    large = BudgetReservation("team", "usd", 2**52 - 1, 2**53)
    got = await given(store, "a", large)
    assert got.left == (2**52 + 1,)
    assert (await store.settle(got, {large: 2**52 - 3})).spent == {large: 2**52 - 3}
    assert await store.peek([large]) == [UsageLevel(2**52 - 3)]


async def test_a_budget_without_a_cap_counts(store: Store) -> None:
    budget = BudgetReservation("team", "usd", 10, None)
    got = await given(store, "a", budget)
    assert got.left == (None,)
    assert (await store.settle(got, {budget: 7})).spent == {budget: 7}


async def test_a_budget_is_kept_while_it_has_reservations(store: Store, elapse: Elapse) -> None:
    budget = BudgetReservation("team", "2026-11", 10, 25, keep=0.2)
    got = await given(store, "a", budget, ttl=60)
    await elapse(0.4)
    assert await store.peek([budget]) == [UsageLevel(0, 10)]
    assert await store.renew(got, 90)
    assert (await store.settle(got, {budget: 7})).spent == {budget: 7}


async def test_a_budget_may_be_forgotten_some_time_after_its_last_use(
    store: Store, elapse: Elapse
) -> None:
    budget = BudgetReservation("team", "2026-11", 10, 25, keep=0.4)
    await store.settle(await given(store, "a", budget, ttl=0.1))
    assert await store.peek([budget]) == [UsageLevel(10)]
    await elapse(0.5)
    assert await store.peek([budget]) == [UsageLevel(0)]


async def test_a_second_reservation_of_a_holder_replaces_the_first(store: Store) -> None:
    await given(store, "a", BUDGET)
    more = BudgetReservation("team", "usd", 20, 25, on_expiry="release")
    assert (await given(store, "a", more)).left == (5,)
    await refused(store, "a", BudgetReservation("team", "usd", 26, 25))
    assert await store.peek([BUDGET]) == [UsageLevel(0, 20)]
    again = await given(store, "a", BUDGET)
    assert (await store.settle(again, {BUDGET: 1})).first
    assert await store.peek([BUDGET]) == [UsageLevel(1, 0)]


async def test_a_charge_counts_once_also_over_the_cap(store: Store) -> None:
    budget = BudgetReservation("team", "usd", 40, 25)
    assert await store.charge(budget, once="x") == 40
    assert await store.charge(budget, once="x") == 40
    assert await store.charge(BudgetReservation("team", "usd", -30, 25), once="credit") == 10
    assert (await given(store, "a", BUDGET)).left == (5,)


# an admission that ended in StoreUnavailableError


async def test_an_admission_without_a_received_reply_is_settled_once(store: Store) -> None:
    await given(store, "a", SLOT, BUDGET)
    assumed = Admitted.assumed("a", [SLOT, BUDGET])
    assert (await store.settle(assumed, {BUDGET: 4})).spent == {BUDGET: 4}
    assert not (await store.settle(assumed, {BUDGET: 4})).first
    assert await store.peek([SLOT, BUDGET]) == [UsageLevel(0), UsageLevel(4)]


async def test_an_admission_that_was_never_made_is_settled_once(store: Store) -> None:
    assumed = Admitted.assumed("a", [SLOT, BUDGET])
    assert (await store.settle(assumed, {BUDGET: 4})).spent == {BUDGET: 4}
    assert not (await store.settle(assumed, {BUDGET: 4})).first
    assert await store.peek([SLOT, BUDGET]) == [UsageLevel(0), UsageLevel(4)]


async def test_an_admission_that_arrives_after_its_settlement_reserves_no_budget(
    store: Store,
) -> None:
    """A paused server executes an earlier command after a later one."""
    await store.settle(Admitted.assumed("a", [BUDGET]), {BUDGET: 0})
    await refused(store, "a", BUDGET)
    assert await store.peek([BUDGET]) == [UsageLevel(0, 0)]


async def test_after_a_holder_expired_an_assumed_settlement_corrects_it(
    store: Store, elapse: Elapse
) -> None:
    await given(store, "a", BUDGET, ttl=0.1)
    await elapse(0.2)
    assert await store.peek([BUDGET]) == [UsageLevel(10)]
    assumed = Admitted.assumed("a", [BUDGET])
    assert (await store.settle(assumed, {BUDGET: 0})).spent == {BUDGET: 0}
    assert not (await store.settle(assumed, {BUDGET: 7})).first


# holds


async def test_a_name_on_hold_denies_the_admission(
    store: Store, other: Store, elapse: Elapse
) -> None:
    assert await store.holds("pool") == {}
    assert await store.hold("pool", "k1", 0.5, b"429")
    held = await other.holds("pool")
    assert list(held) == ["k1"]
    assert held["k1"].value == b"429"
    assert 0 < held["k1"].seconds <= 0.5
    no = await refused(other, "a", NotOnHold("pool", "k1"))
    assert no.retry_after is not None
    assert 0 < no.retry_after <= 0.5
    assert await store.peek([NotOnHold("pool", "k1"), NotOnHold("pool", "k2")]) == [
        UsageLevel(1),
        UsageLevel(0),
    ]
    await given(store, "a", NotOnHold("pool", "k2"))
    await elapse(0.55)
    await given(store, "a", NotOnHold("pool", "k1"))
    assert await store.holds("pool") == {}


async def test_a_longer_hold_replaces_a_shorter_one_but_not_vice_versa(store: Store) -> None:
    assert await store.hold("pool", "k", 60, b"long")
    assert not await store.hold("pool", "k", 30, b"short")
    held = await store.holds("pool")
    assert held["k"].value == b"long"
    assert await store.hold("pool", "k", 90, b"\x00longer\n ")
    assert (await store.holds("pool"))["k"].value == b"\x00longer\n "


async def test_a_hold_can_be_lifted(store: Store, other: Store) -> None:
    await store.hold("pool", "k", 60)
    assert await other.lift("pool", "k")
    assert not await store.lift("pool", "k")
    await given(store, "a", NotOnHold("pool", "k"))


# many at the same time


async def test_of_five_hundred_concurrent_requests_no_more_than_the_limits_are_admitted(
    store: Store, other: Store
) -> None:
    grants = [
        ConcurrencySlot("busy", "calls", 60),
        RateLimit("busy", "rpm", 55),
        BudgetReservation("busy", "usd", 10, 505),
    ]
    clients = (store, other)
    found = await asyncio.gather(*(clients[n % 2].admit(f"{n}", grants) for n in range(500)))
    got = [each for each in found if isinstance(each, Admitted)]
    assert len(got) == 50
    await asyncio.gather(*(store.settle(each, {grants[2]: 7}) for each in got))
    assert await store.peek(grants) == [UsageLevel(0), UsageLevel(50), UsageLevel(350)]


async def test_a_cancelled_caller_does_not_disturb_others(store: Store) -> None:
    async def ask(number: int) -> dict[str, int]:
        return await store.add("sums", {f"n{number}": number})

    tasks = [asyncio.create_task(ask(number)) for number in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    for number, task in enumerate(tasks):
        if number % 2:
            assert await task == {f"n{number}": number}
    again = await asyncio.gather(*(store.sums("sums", [f"n{n}"]) for n in range(1, 200, 2)))
    assert again == [{f"n{n}": n} for n in range(1, 200, 2)]
