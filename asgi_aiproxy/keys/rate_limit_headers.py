"""Rate-limit headers of successful responses."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_aiproxy.retry_after import retry_after

_ZERO = ("0", "0.0")


def exhausted_for(headers: Sequence[tuple[str, str]], now: float) -> float | None:
    """Seconds until a limit that is used up is renewed; None if the headers report none.

    Reads `x-ratelimit-remaining-*` (OpenAI and compatible providers) and
    `anthropic-ratelimit-*-remaining`, each with its reset header. Names must be lower case; `now`
    is Unix time in seconds.
    """
    for name, value in headers:
        if value in _ZERO and "remaining" in name and "ratelimit" in name:
            return retry_after(headers, now)
    return None
