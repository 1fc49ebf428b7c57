"""CSV (RFC 4180) that a spreadsheet cannot take for formulas.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is evaluated as a formula by
spreadsheet programs (https://owasp.org/www-community/attacks/CSV_Injection). Names of models,
tags and callers are written by others, so such a text gets an apostrophe in front, also if white
space comes before that character. Numbers stay numbers, and are written without an exponent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import isfinite

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

Cell = str | int | float | bool | None


def csv_lines(rows: Iterable[Sequence[Cell]]) -> str:
    """Return rows as CSV."""
    out = io.StringIO()
    csv.writer(out).writerows([[_safe(cell) for cell in row] for row in rows])
    return out.getvalue()


def csv_time(unix_time: float | None) -> str:
    """Return a Unix time as ISO 8601 in UTC; empty for None and 0."""
    if not unix_time:
        return ""
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="seconds")


def _safe(cell: Cell) -> Cell:
    if isinstance(cell, str):
        begin = cell[:1]
        if begin in _FORMULA_STARTS or cell.lstrip()[:1] in _FORMULA_STARTS:
            return cell if cell == "" else f"'{cell}"
    if isinstance(cell, float) and isfinite(cell) and "e" in repr(cell):
        return f"{cell:.6f}"  # without an exponent, to a micro-dollar
    return cell
