"""Charts as SVG, drawn on the server: no script, no inline style, readable as text.

This module computes the coordinates; `templates/chart.html` draws them. Each bar has a `<title>`,
colours are classes of the stylesheet, and the page shows the same figures in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import msgspec

WIDTH, HEIGHT = 560, 180
_LEFT, _BOTTOM, _TOP = 52, 24, 12
_MAX_LABELS = 8
_LINES = 4  # of the grid, above the base
_ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15)


class Bar(msgspec.Struct, frozen=True):
    """A bar: the `label` below it, its `value`, and its `title`; `part` of it is highlighted, and
    `before` is a value to compare it with.
    """

    label: str
    value: float
    title: str
    part: float = 0.0
    before: float = 0.0


class Shape(msgspec.Struct, frozen=True):
    """A rectangle, `part` of it is `part_height` high; with the title of its bar. `before_y` is
    the height of the value to compare it with.
    """

    x: float
    y: float
    width: float
    height: float
    part_y: float
    part_height: float
    title: str
    before_y: float | None = None


class Label(msgspec.Struct, frozen=True):
    """A text of an axis."""

    x: float
    y: float
    text: str


class Chart(msgspec.Struct, frozen=True):
    """A chart: `title` describes it for screen readers, `grid` has the labels of its lines."""

    title: str
    shapes: list[Shape]
    grid: list[Label]
    labels: list[Label]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT


def bar_chart(bars: Sequence[Bar], *, title: str, unit: str = "") -> Chart:
    """Return a bar chart. `unit` is put before the figures of the axis, which are whole numbers
    without one.
    """
    top = _round_up(max((max(bar.value, bar.before) for bar in bars), default=0.0), whole=not unit)
    space = (WIDTH - _LEFT) / max(len(bars), 1)
    height = HEIGHT - _BOTTOM - _TOP
    grid = [
        Label(
            _LEFT,
            round(_TOP + height * step / _LINES, 1),
            f"{unit}{_short(top * (_LINES - step) / _LINES)}",
        )
        for step in range(_LINES + 1)
    ]
    shapes = []
    for index, bar in enumerate(bars):
        tall = round(height * bar.value / top, 1)
        part = round(height * min(bar.part, bar.value) / top, 1)
        shapes.append(
            Shape(
                x=round(_LEFT + index * space + space * 0.1, 1),
                y=round(_TOP + height - tall, 1),
                width=round(max(space * 0.8, 1), 1),
                height=tall,
                part_y=round(_TOP + height - part, 1),
                part_height=part,
                title=bar.title,
                before_y=round(_TOP + height * (1 - bar.before / top), 1) if bar.before else None,
            )
        )
    every = max(1, -(-len(bars) // _MAX_LABELS))
    labels = [
        Label(round(_LEFT + index * space, 1), HEIGHT - 6, bar.label)
        for index, bar in enumerate(bars)
        if index % every == 0
    ]
    return Chart(title, shapes, grid, labels)


def _round_up(value: float, *, whole: bool) -> float:
    """Return a number that is not below `value`, and of which a quarter is a round number."""
    quarter = max(value / _LINES, 1e-6)
    power = 1e-6
    while power * 10 <= quarter:
        power *= 10
    found = next(power * step for step in _ROUND if power * step >= quarter * (1 - 1e-9))
    return _LINES * (ceil(found) if whole else found)


def _short(value: float) -> str:
    """Return a figure for an axis."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if value < 1 else f"{value:g}"
