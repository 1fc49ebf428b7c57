"""Print results: tables for people, JSON for programs."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from asgi_aiproxy.services.budgets import BudgetOut, LimitUsage

_MAX_CELL_WIDTH = 48


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    print(text.decode())


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
    """Print a table, numbers aligned to the right; prints `nothing` if it has no rows."""
    if not rows:
        print(nothing)
        return
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [list(heads), *cells]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(heads))]
    right = [
        all(isinstance(row[column], int | float | None) for row in rows)
        for column in range(len(heads))
    ]
    for line in lines:
        padded = [
            " " * (width - _width(text)) + text if end else text + " " * (width - _width(text))
            for text, width, end in zip(line, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip())


def print_fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, without empty ones."""
    shown = [(name, _cell(value)) for name, value in pairs if value not in ("", None, ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        print(f"{name:<{width}}  {text}")


def print_error(text: str) -> None:
    """Print a message to standard error."""
    print(text, file=sys.stderr)


def print_next_page_hint(next: str | None) -> None:
    """Print how to show the next page of a list."""
    if next is not None:
        print_error(f"More rows: --after {next}")


def format_time(time_: float | None) -> str:
    """Format a Unix time; empty for None."""
    return datetime.fromtimestamp(time_, UTC).strftime("%Y-%m-%d %H:%M UTC") if time_ else ""


def format_usd(amount: float) -> str:
    """Format an amount in US dollars."""
    return f"${amount:.2f}" if amount == round(amount, 2) else f"${amount:.6f}".rstrip("0")


def budget(budget: BudgetOut) -> str:
    """Format what is left of a budget."""
    per = "" if budget.per == "total" else f"/{budget.per}"
    if budget.unit == "usd":
        return f"{format_usd(budget.left)} of {format_usd(budget.limit)}{per}"
    return f"{budget.left:.0f} of {budget.limit:.0f} units{per}"


def limits(usage: LimitUsage) -> list[tuple[str, object]]:
    """Format limits and how much of them is used, as names and values."""
    pairs: list[tuple[str, object]] = []
    for name, names in (
        ("rpm", "requests/min"),
        ("tpm", "tokens/min"),
        ("concurrency", "concurrent"),
    ):
        rate = getattr(usage, name)
        if rate is not None:
            pairs.append((names, f"{rate.limit} ({rate.used} used)"))
    pairs += [("left", budget(limit)) for limit in usage.budgets]
    return pairs


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return ", ".join(map(_cell, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    # Control characters could change the terminal: they are replaced.
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if _width(text) <= _MAX_CELL_WIDTH else text[: _MAX_CELL_WIDTH - 1] + "…"


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
