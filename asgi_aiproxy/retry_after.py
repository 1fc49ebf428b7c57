"""Parse when to try again, from headers and error messages of providers. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_AMOUNT = (
    r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)"
    r"(?![a-z])"
)
_AMOUNTS = re.compile(_AMOUNT, re.IGNORECASE)
_RETRY_MESSAGE = re.compile(
    rf"\b(?:try again|retry)(?: after| in)? ((?:{_AMOUNT}(?:,? (?:and )?)?)+)", re.IGNORECASE
)
_RESET = re.compile(
    r"(?:x-ratelimit-reset|x-ratelimit-reset-(?P<limit>[a-z-]+)"
    r"|(?P<of_vendor>[a-z]+-ratelimit-[a-z-]+)-reset|ratelimit-reset)"
)


def retry_after(headers: Sequence[tuple[str, str]], now: float) -> float | None:
    """Return the seconds to wait (>= 0) by the headers of a response; None if they name no time.

    `retry-after-ms`, `retry-after` (seconds or a date), and the reset times of exhausted limits:
    OpenAI's spans (`6m0s`, `120ms`), Anthropic's timestamps, epochs in seconds or milliseconds.
    `now` is Unix time.
    """
    found = dict(headers)
    exact = _number(found.get("retry-after-ms"))
    if exact is not None:
        return max(exact / 1000, 0.0)
    if "retry-after" in found:
        wait = _seconds_until(found["retry-after"], now)
        if wait is not None:
            return wait
    waits = [
        wait
        for name, value in headers
        if (match := _RESET.fullmatch(name))
        and _exhausted(found, match)
        and (wait := _seconds_until(value, now)) is not None
    ]
    return max(waits, default=None)


def retry_after_in_message(message: str) -> float | None:
    """Return the seconds to wait by an error message: `Please try again in 1m3.5s.`; else None.

    OpenAI and compatible vendors write such messages, some of them without a header.
    """
    match = _RETRY_MESSAGE.search(message[:2000])
    if match is None:
        return None
    return sum(float(n) * _unit(word.lower()) for n, word in _AMOUNTS.findall(match[1]))


def _unit(word: str) -> float:
    return _UNITS["ms" if word.startswith(("ms", "mil")) else word[0]]


def _exhausted(headers: dict[str, str], match: re.Match[str]) -> bool:
    """Whether the limit of a reset header is used up; True if no header has what remains."""
    if match["limit"]:
        remaining = headers.get(f"x-ratelimit-remaining-{match['limit']}")
    elif match["of_vendor"]:
        remaining = headers.get(f"{match['of_vendor']}-remaining")
    else:
        remaining = headers.get("x-ratelimit-remaining", headers.get("ratelimit-remaining"))
    return remaining is None or remaining.strip() in ("", "0", "0.0")


def _seconds_until(value: str, now: float) -> float | None:
    """Return the seconds until a time: a number, a duration, ISO 8601 or an HTTP date."""
    value = value.strip()
    number = _number(value)
    if number is not None:
        if number > 1e12:  # an epoch in milliseconds
            number = number / 1000 - now
        elif number > 1e9:  # an epoch in seconds
            number -= now
        return max(number, 0.0)
    spans = _SPAN.findall(value)
    if spans and "".join(a + b for a, b in spans) == value:
        return sum(float(amount) * _UNITS[unit] for amount, unit in spans)
    try:
        then = datetime.fromisoformat(value)
    except ValueError:
        from email.utils import parsedate_to_datetime  # (a large package, for a rare format)

        try:
            then = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(then.timestamp() - now, 0.0)


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and -1e18 < number < 1e18 else None
