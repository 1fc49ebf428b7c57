"""Strategies: the order in which the keys of a pool are tried.

A strategy yields candidates, best first; a key may come twice. The first usable candidate is taken,
so the cost is that of finding it, not of looking at all keys: a strategy first yields a few random
draws, and only then all keys.
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

# Random draws before all keys are yielded.
_RANDOM_DRAWS = 16
# Up to this many keys, the share of a key that cools down is divided exactly by weight.
_EXACT_WEIGHTS_UP_TO = 64


class PriorityGroup:
    """The keys of one priority, which are tried in the order of a strategy.

    By weight means in rotation when all weights are equal.
    """

    def __init__(self, states: list[KeyState], strategy: Strategy) -> None:
        self.states = states
        equal = len({state.key.weight for state in states}) == 1
        self.order = STRATEGIES["round_robin" if strategy == "weighted" and equal else strategy]
        self.turn = 0
        self.weights = list(accumulate(state.key.weight for state in states))

    def sequence(self, start: int) -> Iterator[KeyState]:
        """All keys once, beginning at position `start`."""
        count = len(self.states)
        for offset in range(count):
            yield self.states[(start + offset) % count]

    def pick_by_weight(self, point: float) -> KeyState:
        """The key at a point in [0, 1), where each key covers an interval by its weight."""
        index = bisect(self.weights, point * self.weights[-1])
        return self.states[min(index, len(self.states) - 1)]


def grouped(states: Iterable[KeyState], strategy: Strategy) -> list[PriorityGroup]:
    """Keys grouped by priority, lowest number first."""
    ranked = sorted(states, key=lambda state: state.key.priority)
    same_priority = groupby(ranked, lambda state: state.key.priority)
    return [PriorityGroup(list(same), strategy) for _, same in same_priority]


def _fill_first(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    yield from group.states


def _round_robin(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    turn, group.turn = group.turn, group.turn + 1
    yield group.states[turn % len(group.states)]
    # It is not usable: all others share its turn, otherwise its neighbour would get two.
    yield from _random(group, random)


def _random(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    for _ in range(_RANDOM_DRAWS):
        yield random.choice(group.states)
    yield from group.sequence(random.randrange(len(group.states)))


def _by_weight(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    for _ in range(_RANDOM_DRAWS):
        yield group.pick_by_weight(random.random())
    if len(group.states) <= _EXACT_WEIGHTS_UP_TO:
        # Efraimidis and Spirakis: sorting by u^(1/w) is drawing by weight without replacement.
        yield from sorted(
            group.states, key=lambda state: -(random.random() ** (1 / state.key.weight))
        )
    else:
        yield from group.sequence(random.randrange(len(group.states)))


def _least_busy(group: PriorityGroup, random: random.Random) -> Iterator[KeyState]:
    sample = group.states
    if len(sample) > _RANDOM_DRAWS:
        sample = random.sample(sample, _RANDOM_DRAWS)
    group.turn += 1
    first = group.turn % len(sample)
    rotated = sample[first:] + sample[:first]  # so that ties are not always won by the same key
    yield from sorted(rotated, key=lambda state: state.in_flight / state.key.weight)
    if len(sample) < len(group.states):
        yield from group.sequence(random.randrange(len(group.states)))


STRATEGIES: dict[str, Callable[[PriorityGroup, random.Random], Iterator[KeyState]]] = {
    "weighted": _by_weight,
    "round_robin": _round_robin,
    "random": _random,
    "least_busy": _least_busy,
    "fill_first": _fill_first,
}


def slow_start(states: Iterator[KeyState], random: random.Random) -> Iterator[KeyState]:
    """The same candidates, with keys just out of quarantine mostly moved to the end."""
    postponed = []
    for state in states:
        if state.slow_start_weight < 1 and random.random() >= state.slow_start_weight:
            postponed.append(state)
        else:
            yield state
    yield from postponed


def sticky(group: PriorityGroup, affinity: str) -> Iterator[KeyState]:
    """The same order for the same affinity, chosen by weight from its hash."""
    digest = hashlib.sha256(affinity.encode("utf-8", "surrogatepass")).digest()
    for index in range(0, len(digest), 4):
        yield group.pick_by_weight(int.from_bytes(digest[index : index + 4]) / 2**32)
    yield from group.sequence(int.from_bytes(digest))


def system_random() -> random.Random:
    """A new random generator."""
    return random.Random()  # noqa: S311 (it spreads load, it protects no secret)
