"""What an exchange used, also where its provider did not live to tell."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asgi_aiproxy.gate import NOTHING_PASSED, Passed
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.estimate import Size, written_tokens
from asgi_aiproxy.usage import Outcome, UsageRecord, within

# What answers are taken to have come to where nobody counted them: models write this fast.
_TOKENS_A_SECOND = 50
_NOTHING = Usage()
# No model reads or writes more in one call; nor so many times what was estimated, if that is more.
_LONGEST, _SLACK = 1_000_000, 2
_USUAL = 32_768
# Operations whose answers hold no tokens.
SILENT = frozenset({"embeddings", "moderations"})


class Reckoned(msgspec.Struct, frozen=True):
    """`estimated`: not all of it was told by the provider. `absorbed`: the caller does not pay."""

    usage: Usage
    estimated: bool = False
    absorbed: bool = False


def reckon(
    record: UsageRecord,
    size: Callable[[], Size],
    passed: Passed = NOTHING_PASSED,
    *,
    known: bool = True,
) -> Reckoned:
    """What to book for an exchange. `size` says how many tokens it brought, and could get at most
    (`known`: without taking long), `passed` is what of the answer went by.

    Refused requests cost nothing. An answer that broke is not charged: what it cost is absorbed.
    Who leaves pays for what was used until then. Counts that cannot be true are not believed.
    """
    told = record.usage
    if record.outcome is Outcome.DONE and told is not None:
        return _believed(record, told, size, passed, known=known)
    if record.outcome is Outcome.REFUSED:
        return Reckoned(told or _NOTHING)
    if record.outcome is Outcome.FAILED:
        if record.first_byte is None:
            return Reckoned(told or _NOTHING, absorbed=told is not None)
        return Reckoned(_guess(record, size(), passed), estimated=True, absorbed=True)
    if not record.provider:
        return Reckoned(_NOTHING)  # nobody was asked
    return Reckoned(_guess(record, size(), passed), estimated=True)


def _believed(
    record: UsageRecord, told: Usage, size: Callable[[], Size], passed: Passed, *, known: bool
) -> Reckoned:
    """What a provider told, or an estimate in place of what it cannot have been.

    No model reads more than _LONGEST tokens that nobody sent, nor writes much more than the request
    allows, but for its thoughts; and one that read or wrote nothing gave no answer.
    """
    # (Parts that are told beside the whole count, too.)
    read = max(told.input, told.cache_read + told.cache_write)
    wrote = max(told.output, told.reasoning)
    silent = record.operation in SILENT
    # (To know the size costs time: most need none.)
    usual = 0 < read < _USUAL and (0 < wrote < _USUAL or (silent and not wrote))
    if not usual or known:
        told = _possible(record, told, read, wrote, size(), passed)
    if min(msgspec.structs.astuple(told)) < 0:
        told = within(told)
    return Reckoned(told, estimated=told != record.usage)


def _possible(
    record: UsageRecord, told: Usage, read: int, wrote: int, size: Size, passed: Passed
) -> Usage:
    allowed = _SLACK * size.output if size.limited else max(_LONGEST, _SLACK * size.output)
    said = wrote - min(told.reasoning, _LONGEST)
    wrong = said > allowed or wrote > allowed + _LONGEST
    if wrong:
        wrote = min(_written(record, size, passed), wrote)
    elif not wrote and record.operation not in SILENT:
        wrote = written_tokens(passed.size, passed.sample)
        wrong = wrote > 0
    if not read or read > _LONGEST + _SLACK * size.input:
        read, wrong = size.usual, True
    return within(msgspec.structs.replace(told, input=read, output=wrote)) if wrong else told


def _guess(record: UsageRecord, size: Size, passed: Passed) -> Usage:
    """What is known, and for the rest what passed makes likely, or else the time that passed."""
    told = record.usage or _NOTHING
    if size.later and record.outcome is Outcome.DONE:
        return within(msgspec.structs.replace(told, input=size.input, output=size.output))
    wrote = 0
    if record.first_byte is not None and record.operation not in SILENT:
        wrote = _written(record, size, passed)
    return msgspec.structs.replace(
        told, input=told.input or size.usual, output=max(told.output, wrote)
    )


def _written(record: UsageRecord, size: Size, passed: Passed) -> int:
    wrote = written_tokens(passed.size, passed.sample)
    if not wrote:
        time = record.duration - (record.first_byte or 0.0)
        wrote = min(int(time * _TOKENS_A_SECOND) + 1, size.output)
    return wrote
