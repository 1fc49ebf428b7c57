"""Periods of budgets: their names in the store, and when they end. All in UTC; weeks are ISO 8601.

The spending of each period is kept under a name of its own (`2026-11-30T14`, `2026-11-30`,
`2026-W49`, `2026-11`), so a new period begins at zero without anything being reset.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from asgi_aiproxy.principal import dates_of

_DAY = 86400.0
# How long, in seconds, the spending of a period is kept after its last change.
_KEEP_SECONDS = {"hour": _DAY, "day": 3 * _DAY, "week": 14 * _DAY, "month": 40 * _DAY}
_FORMATS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}


def period_name(per: str, now: float) -> str:
    """The name of the period that the Unix time `now` is in."""
    if per in _FORMATS:
        return datetime.fromtimestamp(now, UTC).strftime(_FORMATS[per])
    return per


def period_kind(name: str) -> str:
    """`total`, `hour`, `day`, `week` or `month`, by the name of a period; two dates as they are."""
    if name == "total" or ".." in name:
        return name
    if "W" in name:
        return "week"
    return {7: "month", 10: "day"}.get(len(name), "hour")


def seconds_to_end(per: str, now: float) -> float | None:
    """The seconds until a period ends; None if it does not end, or has ended.

    Before the first of two dates it is the time until then.
    """
    at = datetime.fromtimestamp(now, UTC)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match per:
        case "total":
            return None
        case "hour":
            end = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        case "day":
            end = midnight + timedelta(days=1)
        case "week":
            end = midnight + timedelta(days=7 - at.weekday())
        case "month":
            end = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
        case _:
            start, end = _bounds(per)
            end = start if at < start else end
    left = (end - at).total_seconds()
    return left if left > 0 else None


def is_within(per: str, now: float) -> bool:
    """Whether a budget can be spent now: only one with two dates may be too early or over."""
    if ".." not in per:
        return True
    start, end = _bounds(per)
    return start <= datetime.fromtimestamp(now, UTC) < end


def keep_seconds(per: str) -> float | None:
    """For how long the spending of a period is kept after its last change; None: indefinitely."""
    if ".." in per:
        start, end = _bounds(per)
        return (end - start).total_seconds() + 40 * _DAY
    return _KEEP_SECONDS.get(per)


def _bounds(per: str) -> tuple[datetime, datetime]:
    """The beginning of the first day, and the end of the last one."""
    days = dates_of(per)
    assert days is not None  # noqa: S101 (a budget checks it)
    first, last = (datetime.combine(day, time(), UTC) for day in days)
    return first, last + timedelta(days=1)
