"""The key selected for a request, also among ten thousand."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from asgi_aiproxy.keys import (
    Key,
    KeyPool,
    NoKeyError,
    matches_pattern,
)
from asgi_aiproxy.keys.key_state import KeyState
from tests.support.key_pools import STRATEGIES, fails, named, pool, served, tally

pytestmark = pytest.mark.anyio


def test_keys_of_equal_weight_are_used_in_rotation() -> None:
    keys, _ = pool(*named("a", "b", "c"))
    assert [served(keys) for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


def test_weights_set_the_share_of_each_key() -> None:
    keys, _ = pool(Key("1", id="a", weight=5), Key("2", id="b", weight=3), Key("3", id="c"))
    counts = tally(keys, 9000)
    assert 4800 < counts["a"] < 5200
    assert 2800 < counts["b"] < 3200
    assert 850 < counts["c"] < 1150


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "random"])
def test_the_share_of_a_cooling_key_is_divided_among_all_others(
    strategy: Any,
) -> None:
    keys, _ = pool(*named("a", "b", "c", "d", "e"), strategy=strategy)
    fails(keys, 429, 3600, key_id="b")
    counts = tally(keys, 4000)
    assert set(counts) == {"a", "c", "d", "e"}
    assert all(850 < count < 1150 for count in counts.values()), counts


def test_the_share_of_a_cooling_heavy_key_is_divided_by_weight() -> None:
    heavy = Key("0", id="heavy", weight=94)
    keys, _ = pool(heavy, Key("1", id="a", weight=4), *named("b", "c"))
    fails(keys, 429, 3600, key_id="heavy")
    counts = tally(keys, 6000)
    assert 3700 < counts["a"] < 4300
    assert 850 < counts["b"] < 1150
    assert 850 < counts["c"] < 1150


def test_round_robin_ignores_weights_and_random_spreads_evenly() -> None:
    heavy = [Key("1", id="a", weight=9), *named("b", "c")]
    keys, _ = pool(*heavy, strategy="round_robin")
    assert [served(keys) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    keys, _ = pool(*heavy, strategy="random")
    assert all(850 < count < 1150 for count in tally(keys, 3000).values())


def test_fill_first_uses_the_first_usable_key() -> None:
    keys, clock = pool(Key("1", id="a", concurrency=1), *named("b", "c"), strategy="fill_first")
    assert tally(keys, 5) == {"a": 5}
    first = keys.acquire_nowait()
    assert served(keys) == "b"
    first.release()
    fails(keys, 429, 10)
    assert tally(keys, 5) == {"b": 5}
    clock.now += 10
    assert served(keys) == "a"


def test_least_busy_spreads_calls_in_flight_by_weight() -> None:
    keys, _ = pool(Key("1", id="a", weight=2), *named("b"), strategy="least_busy")
    leases = [keys.acquire_nowait() for _ in range(9)]
    assert Counter(lease.key.id for lease in leases) == {"a": 6, "b": 3}
    for lease in leases:
        if lease.key.id == "b":
            lease.release()
    assert keys.acquire_nowait().key.id == "b"


def test_least_busy_finds_an_idle_key_among_many() -> None:
    keys, _ = pool(*named(*map(str, range(100))), strategy="least_busy")
    leases = [keys.acquire_nowait() for _ in range(300)]
    assert max(Counter(lease.key.id for lease in leases).values()) <= 6
    assert len({lease.key.id for lease in leases}) == 100


def test_lower_priorities_are_used_only_when_no_higher_one_is_usable() -> None:
    keys, clock = pool(*named("reserve", priority=1), *named("a", "b"), *named("last", priority=2))
    assert set(tally(keys, 20)) == {"a", "b"}
    fails(keys, 429, 10, key_id="a")
    fails(keys, 429, 20, key_id="b")
    assert set(tally(keys, 5)) == {"reserve"}
    fails(keys, 401, key_id="reserve")
    assert set(tally(keys, 5)) == {"last"}
    clock.now += 10
    assert set(tally(keys, 5)) == {"a"}


def test_an_affinity_keeps_its_key_avoids_it_while_it_cools_down_and_returns() -> None:
    keys, clock = pool(*named(*"abcdefgh"))
    mine = served(keys, affinity="session-1")
    assert tally(keys, 20, affinity="session-1") == {mine: 20}
    fails(keys, 429, 10, key_id=mine)
    other = served(keys, affinity="session-1")
    assert other != mine
    assert tally(keys, 20, affinity="session-1") == {other: 20}
    clock.now += 10
    assert tally(keys, 20, affinity="session-1") == {mine: 20}


def test_affinities_are_distributed_by_weight_also_those_of_a_cooling_key() -> None:
    keys, _ = pool(Key("1", id="a", weight=2), *named("b", "c", "d"))
    sessions = [f"session-{n}" for n in range(2000)]
    homes = {session: served(keys, affinity=session) for session in sessions}
    counts = Counter(homes.values())
    assert 700 < counts["a"] < 900
    assert all(320 < counts[id] < 480 for id in "bcd")
    fails(keys, 429, 10, key_id="d")
    moved = Counter(served(keys, affinity=s) for s in sessions if homes[s] == "d")
    assert set(moved) == {"a", "b", "c"}
    assert min(moved.values()) > 50
    stayed = [s for s in sessions if homes[s] != "d"]
    assert all(served(keys, affinity=session) == homes[session] for session in stayed)


def test_a_key_serves_only_its_models() -> None:
    keys, _ = pool(
        Key("1", id="small", models=("gpt-4o-mini*", "text-*")),
        Key("2", id="long", models=("sonnet[1m]",)),
        Key("3", id="gpt", models=("gpt-*",)),
    )
    assert set(tally(keys, 20, model="gpt-4o-mini")) == {"small", "gpt"}
    assert set(tally(keys, 20, model="gpt-5")) == {"gpt"}
    assert set(tally(keys, 5, model="sonnet[1m]")) == {"long"}
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(model="claude")
    assert not caught.value.exists
    # A call that names no model may have any.
    assert set(tally(keys, 30)) == {"small", "long", "gpt"}


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("*", "", True),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "GPT-4", False),
        ("gpt-?", "gpt-4", True),
        ("gpt-?", "gpt-40", False),
        ("a*b", "a/x/b", True),
        ("sonnet[1m]", "sonnet[1m]", True),
        ("sonnet[1m]", "sonnet1", False),
        ("[a-z]*", "abc", False),
        ("[*", "[x", True),
    ],
)
def test_a_star_matches_anything_and_brackets_are_literal(
    pattern: str, model: str, fits: bool
) -> None:
    assert matches_pattern(pattern, model) is fits


def test_a_caller_can_select_a_key_and_exclude_some() -> None:
    keys, _ = pool(*named("a", "b", "c"))
    assert tally(keys, 5, key_id="b") == {"b": 5}
    assert set(tally(keys, 9, exclude={"b"})) == {"a", "c"}
    with pytest.raises(NoKeyError, match="'z'") as caught:
        keys.acquire_nowait(key_id="z")
    assert (caught.value.unknown, caught.value.exists) == (True, False)
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(exclude=("a", "b", "c"))
    assert (caught.value.unknown, caught.value.exists) == (False, False)
    # A key that was asked for is not replaced by another.
    fails(keys, 429, 9, key_id="b")
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait(key_id="b")
    assert (caught.value.exists, caught.value.retry_after) == (True, 9)


def test_an_empty_pool_says_so() -> None:
    keys, _ = pool()
    with pytest.raises(NoKeyError) as caught:
        keys.acquire_nowait()
    assert not caught.value.exists
    assert len(keys) == 0


FULL = ("fill_first", 5_000)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of keys examined so far."""
    count = [0]
    wait = KeyState.seconds_until_usable

    def counted(slot: KeyState, now: float) -> float:
        count[0] += 1
        return wait(slot, now)

    monkeypatch.setattr(KeyState, "seconds_until_usable", counted)
    return count


# (fill_first looks at all that are full, by its nature.)
@pytest.mark.parametrize(
    ("strategy", "cooling"),
    [(name, rest) for name in STRATEGIES for rest in (0, 5_000) if (name, rest) != FULL],
)
def test_of_ten_thousand_keys_only_few_are_examined(
    strategy: Any, cooling: int, looks: list[int]
) -> None:
    weighted = strategy == "weighted"
    made = [Key(f"sk-{n}", id=str(n), weight=1 + n % 3 * weighted) for n in range(10_000)]
    keys = KeyPool(made, strategy=strategy, random=random.Random(1))
    for number in range(2000, 2000 + cooling):
        fails(keys, 429, 3600, key_id=str(number))
    looks[0] = 0
    for _ in range(1000):
        served(keys)
    assert looks[0] < 3_000
    looks[0] = 0
    for number in range(1000):
        served(keys, affinity=f"session-{number}")
    assert looks[0] < (1_001 if not cooling else 12_000)
