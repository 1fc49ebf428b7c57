"""What an exchange used, also where its provider did not live to tell."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asgi_aiproxy.gate import NOTHING_PASSED, Passed
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.estimate import written_tokens
from asgi_aiproxy.usage import Outcome, UsageRecord

# What answers are taken to have come to where nobody counted them: models write this fast.
_TOKENS_A_SECOND = 50
_NOTHING = Usage()
# Operations whose answers hold no tokens.
SILENT = frozenset({"embeddings", "moderations"})


class Reckoned(msgspec.Struct, frozen=True):
    """`estimated`: not all of it was told by the provider. `absorbed`: the caller does not pay."""

    usage: Usage
    estimated: bool = False
    absorbed: bool = False


def reckon(
    record: UsageRecord, size: Callable[[], tuple[int, int]], passed: Passed = NOTHING_PASSED
) -> Reckoned:
    """What to book for an exchange. `size` says how many tokens it brought, and could get at most,
    `passed` is what of the answer went by.

    Refused requests cost nothing. An answer that broke is not charged: what it cost is absorbed.
    Who leaves pays for what was used until then.
    """
    told = record.usage
    if record.outcome is Outcome.DONE and told is not None:
        return Reckoned(told)
    if record.outcome is Outcome.REFUSED:
        return Reckoned(told or _NOTHING)
    if record.outcome is Outcome.FAILED:
        if record.first_byte is None:
            return Reckoned(told or _NOTHING, absorbed=told is not None)
        return Reckoned(_guess(record, size, passed), estimated=True, absorbed=True)
    if not record.provider:
        return Reckoned(_NOTHING)  # nobody was asked
    return Reckoned(_guess(record, size, passed), estimated=True)


def _guess(record: UsageRecord, size: Callable[[], tuple[int, int]], passed: Passed) -> Usage:
    """What is known, and for the rest what passed makes likely, or else the time that passed."""
    brought, most = size()
    told = record.usage or _NOTHING
    wrote = 0
    if record.first_byte is not None and record.operation not in SILENT:
        wrote = written_tokens(passed.size, passed.sample)
        if not wrote:
            wrote = int((record.duration - record.first_byte) * _TOKENS_A_SECOND) + 1
            wrote = min(wrote, most)
    return msgspec.structs.replace(
        told, input=told.input or brought, output=max(told.output, wrote)
    )
