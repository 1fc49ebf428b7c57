"""What a provider tells of a key's limits while all goes well."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_aiproxy.retry_after import retry_after

_NONE_LEFT = frozenset({"0", "0.0"})


def exhausted_for(headers: Sequence[tuple[str, str]], now: float) -> float | None:
    """Seconds for which a limit is used up, by the headers of an answer; None if none is.

    `x-ratelimit-remaining-*` (OpenAI and who follows it), `anthropic-ratelimit-*-remaining`, each
    with its reset. Names are in small letters, `now` is Unix time.
    """
    for name, value in headers:
        if value in _NONE_LEFT and "remaining" in name and "ratelimit" in name:
            return retry_after(headers, now)
    return None
