"""The results, as a table and as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass
class Result:
    """One line of the table. `rounds` has the result of each round; the median is reported."""

    row: str
    rounds: list[float]
    unit: str
    must: float | None = None
    should: float | None = None
    higher: bool = False  # whether more is better
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> float:
        return median(self.rounds)

    def passes(self, limit: float | None) -> bool | None:
        if limit is None:
            return None
        return self.measured >= limit if self.higher else self.measured <= limit

    def as_json(self) -> dict[str, Any]:
        judged = {"must_met": self.passes(self.must), "should_met": self.passes(self.should)}
        return {**asdict(self), "measured": self.measured, **judged}


class Progress:
    """Progress lines on stderr."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def step(self, what: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {what}", file=sys.stderr, flush=True)


def costs(results: Iterable[Result]) -> str:
    """The costs of every case, as a table."""
    lines: dict[str, tuple[str, ...]] = {}
    for result in results:
        for case in result.raw.get("cases", ()):
            cpu = f"{median(case['cpu']) * 1e6:.1f}" if case["cpu"] else ""
            busy = f"{median(case['busy']):.0%}" if case["busy"] else ""
            first = f"{median(case['first']) * 1e3:.2f}" if case["first"] else ""
            rate, other = f"{median(case['rate']):.0f}", f"{median(case['load_busy']):.0%}"
            lines[case["name"]] = (case["name"], cpu, rate, busy, other, first)
    if not lines:
        return ""
    names = ("case", "CPU us a unit", "units/s", "core busy", "load core", "first byte ms")
    return _table([names, *lines.values()], set(range(1, len(names))))


_HEAD = ("row", "measured", "must", "", "should", "", "rounds", "")


def table(results: Iterable[Result]) -> str:
    """The results, aligned."""
    return _table([_HEAD, *map(_cells, results)], {1, 2, 4})


def _table(lines: Sequence[Sequence[str]], right: Container[int]) -> str:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    aligned = [
        [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def _cells(result: Result) -> tuple[str, ...]:
    low, high = _number(min(result.rounds)), _number(max(result.rounds))
    return (
        result.row,
        f"{_number(result.measured)} {result.unit}",
        _limit(result, result.must),
        _mark(result.passes(result.must)),
        _limit(result, result.should),
        _mark(result.passes(result.should)),
        low if low == high else f"{low}..{high}",
        result.note,
    )


def _limit(result: Result, limit: float | None) -> str:
    if limit is None:
        return ""
    return f"{'>=' if result.higher else '<='} {limit:g} {result.unit}"


def _mark(passes: bool | None) -> str:
    return {None: "", True: "ok", False: "MISSED"}[passes]


def _number(value: float) -> str:
    return (
        f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    )
