"""`UsageRecord`: one per exchange, however it ended."""

from __future__ import annotations

from enum import StrEnum
from operator import attrgetter

import msgspec

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.applied import AppliedPrice, compact


class Outcome(StrEnum):
    """How an exchange ended."""

    DONE = "done"
    CLIENT_DISCONNECTED = "cut"  # the client left
    FAILED = "failed"  # no target answered, or the answer broke
    REFUSED = "refused"  # the request itself was at fault, or not allowed


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request to an upstream, sent `started` seconds after the exchange began: `seconds` are
    until its first content, or until it failed.

    `status` is the upstream's, 0 if it gave none; `code` is the upstream's error code, and
    `error` the message. Both are empty for the attempt that was the answer.
    """

    provider: str
    model: str = ""
    key_id: str = ""
    status: int = 0
    code: str = ""
    error: str = ""
    seconds: float = 0.0
    started: float = 0.0


# No exchange has that many tokens.
_MAX_TOKENS = 10**9


def plausible_usage(usage: Usage | None) -> Usage | None:
    """The reported usage; None if its counts are impossible."""
    if usage is None or not 0 <= usage.input + usage.output < _MAX_TOKENS:
        return None
    return usage if usage.input >= 0 and usage.output >= 0 else None


def clamp_parts(usage: Usage) -> Usage:
    """The same usage, with each part between 0 and the whole that it is a part of."""
    whole = {"input": usage.input, "output": usage.output}
    changed = {}
    for name, side in _PARTS:
        part = getattr(usage, name)
        if not 0 <= part <= whole[side]:
            changed[name] = min(max(part, 0), whole[side])
    return msgspec.structs.replace(usage, **changed) if changed else usage


_PARTS = (
    ("cache_write", "input"),
    ("cache_read", "input"),
    ("reasoning", "output"),
    ("cache_write_1h", "input"),
    *((f"{kind}_{side}", side) for kind in ("audio", "image") for side in ("input", "output")),
)


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One exchange. Times are in seconds, `started` is Unix time.

    `provider`, `model` and `key_id` are those of the last attempt, `upstream_model` is the model it
    was asked for; `first_byte` is None if nothing was sent; `usage` holds what is known, None if
    the provider reported none. `attempts` counts the requests to upstreams; `attempt_details` are
    these,
    one by one, unless the first one was the answer. `request_id` is what answers, errors and logs
    call the exchange: the caller's `x-request-id`, if there was one, else the same as `id`. `cost`
    is in micro-dollars, `units` in quota units, None if there is no price. `estimated`: part of the
    usage was not reported but estimated. `not_charged`: the caller is not charged. `emulated`:
    features that the gateway emulated for the model, and what that made necessary
    (`asgi_aiproxy.emulation`).

    `session` and `tags` are what the exchange is attributed to (see
    `asgi_aiproxy.exchange.attribution`). `first_content` is the time until the first content was
    received, None if none was; `longest_pause` is the longest time without data after that, as far
    as the polling interval of requests (0.015 s or more) shows. `ignored` are the members of the
    request that the provider was not sent, as in the header `aiproxy-ignored`. `price` is what
    `cost` was computed by.
    """

    id: str
    principal: str = ""
    face: str = ""
    operation: str = ""
    provider: str = ""
    requested_model: str = ""
    upstream_model: str = ""
    model: str = ""
    key_id: str = ""
    usage: Usage | None = None
    outcome: Outcome = Outcome.DONE
    status: int = 0
    error: str = ""
    attempts: int = 0
    attempt_details: tuple[Attempt, ...] = ()
    request_id: str = ""
    started: float = 0.0
    first_byte: float | None = None
    duration: float = 0.0
    account: str = ""
    group: str = ""
    cost: int | None = None
    units: int | None = None
    estimated: bool = False
    not_charged: bool = False
    emulated: tuple[str, ...] = ()
    session: str = ""
    tags: dict[str, str] = {}
    first_content: float | None = None
    longest_pause: float = 0.0
    ignored: tuple[str, ...] = ()
    price: AppliedPrice | None = None


def storable(record: UsageRecord) -> UsageRecord:
    """The same record with its texts as Unicode: callers and providers may write lone surrogates
    into a model's name, which no file, database or JSON library takes."""
    if record.price is not None:
        price = compact(record.price, record.usage)
        record = msgspec.structs.replace(record, price=price)
    if record.attempt_details:
        record = msgspec.structs.replace(
            record, attempt_details=tuple(map(_storable_attempt, record.attempt_details))
        )
    texts = _texts(record)
    if "".join(texts).isascii():
        return record
    encoded = (text.encode("utf-8", "replace").decode() for text in texts)
    plain = dict(zip(_TEXTS, encoded, strict=True))
    return msgspec.structs.replace(record, **plain)


def _storable_attempt(attempt: Attempt) -> Attempt:
    texts = (attempt.model, attempt.key_id, attempt.code, attempt.error)
    model, key_id, code, error = (t.encode("utf-8", "replace").decode() for t in texts)
    changes = {"model": model, "key_id": key_id, "code": code, "error": error}
    return msgspec.structs.replace(attempt, **changes)


_TEXTS = ("model", "requested_model", "upstream_model", "error", "principal", "key_id", "account")
_texts = attrgetter(*_TEXTS)
