"""In which order the keys of a pool are tried.

A strategy yields candidates, best first; one may come twice. The first that can serve is taken, so
a strategy costs what it takes to find one, not what it takes to look at all.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby
from typing import Literal

from asgi_aiproxy.keys.key_state import KeyState

Strategy = Literal["weighted", "round_robin", "random", "least_busy", "fill_first"]

# So many are drawn at random before all are looked at.
_DRAWS = 16
# Up to so many keys, what a resting key leaves over is shared exactly by weight.
_FEW = 64


class PriorityGroup:
    """Keys of one priority."""

    def __init__(self, slots: list[KeyState]) -> None:
        self.slots = slots
        self.turn = 0
        self.weights = list(accumulate(slot.key.weight for slot in slots))
        self.even = len({slot.key.weight for slot in slots}) == 1

    def sequence(self, start: int) -> Iterator[KeyState]:
        """All keys, once, from one on."""
        count = len(self.slots)
        for at in range(count):
            yield self.slots[(start + at) % count]

    def pick_by_weight(self, point: float) -> KeyState:
        """The key at a point between 0 and 1, where each takes room by its weight."""
        return self.slots[min(bisect(self.weights, point * self.weights[-1]), len(self.slots) - 1)]


def grouped(slots: Iterable[KeyState]) -> list[PriorityGroup]:
    """Keys by their priority, the first first."""
    ranked = sorted(slots, key=lambda slot: slot.key.priority)
    return [
        PriorityGroup(list(same)) for _, same in groupby(ranked, lambda slot: slot.key.priority)
    ]


def _fill_first(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    yield from group.slots


def _round_robin(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    turn, group.turn = group.turn, group.turn + 1
    yield group.slots[turn % len(group.slots)]
    # It can not: all others share its turn, else its neighbour would have two.
    yield from _random(group, random)


def _random(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    for _ in range(_DRAWS):
        yield random.choice(group.slots)
    yield from group.sequence(random.randrange(len(group.slots)))


def _weighted(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    return _round_robin(group, random) if group.even else _by_weight(group, random)


def _by_weight(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    for _ in range(_DRAWS):
        yield group.pick_by_weight(random.random())
    if len(group.slots) <= _FEW:
        # Efraimidis and Spirakis: sorting by u^(1/w) is drawing by weight without putting back.
        yield from sorted(group.slots, key=lambda slot: -(random.random() ** (1 / slot.key.weight)))
    else:
        yield from group.sequence(random.randrange(len(group.slots)))


def _least_busy(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    few = group.slots
    if len(few) > _DRAWS:
        few = random.sample(few, _DRAWS)
    group.turn += 1
    first = group.turn % len(few)
    yield from sorted(few[first:] + few[:first], key=lambda slot: slot.in_flight / slot.key.weight)
    if len(few) < len(group.slots):
        yield from group.sequence(random.randrange(len(group.slots)))


STRATEGIES: dict[str, Callable[[PriorityGroup, random.Random], Iterator[KeyState]]] = {
    "weighted": _weighted,
    "round_robin": _round_robin,
    "random": _random,
    "least_busy": _least_busy,
    "fill_first": _fill_first,
}


def slow_start(slots: Iterator[KeyState], random: random.Random) -> Iterator[KeyState]:
    """The same, but keys just out of quarantine are seldom first."""
    shy = []
    for slot in slots:
        if slot.slow_start_weight < 1 and random.random() >= slot.slow_start_weight:
            shy.append(slot)
        else:
            yield slot
    yield from shy


def sticky(group: PriorityGroup, affinity: str) -> Iterator[KeyState]:
    """The same key for one affinity, by weight; when it can not, the same others in its place."""
    digest = hashlib.sha256(affinity.encode("utf-8", "surrogatepass")).digest()
    for at in range(0, len(digest), 4):
        yield group.pick_by_weight(int.from_bytes(digest[at : at + 4]) / 2**32)
    yield from group.sequence(int.from_bytes(digest))


def system_random() -> random.Random:
    """A source of randomness of one's own."""
    return random.Random()  # noqa: S311 (it spreads load, it keeps no secret)
