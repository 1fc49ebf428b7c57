"""What an exchange used, also where its provider did not live to tell."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asgi_aiproxy.exchange.admission import EMPTY_SAMPLE, ResponseSample
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.token_estimate import RequestSize, estimate_output_tokens
from asgi_aiproxy.usage.record import Outcome, UsageRecord, clamp_parts

# What answers are taken to have come to where nobody counted them: models write this fast.
_TOKENS_A_SECOND = 50
_NOTHING = Usage()
# No model reads or writes more in one call; nor so many times what was estimated, if that is more.
_LONGEST, _SLACK = 1_000_000, 2
_USUAL = 32_768
# Operations whose answers hold no tokens.
SILENT = frozenset({"embeddings", "moderations"})


class BillableUsage(msgspec.Struct, frozen=True):
    """`estimated`: not all of it was told by the provider. `not_charged`: the caller does not
    pay."""

    usage: Usage
    estimated: bool = False
    not_charged: bool = False


def billable_usage(
    record: UsageRecord,
    size: Callable[[], RequestSize],
    passed: ResponseSample = EMPTY_SAMPLE,
    *,
    known: bool = True,
) -> BillableUsage:
    """What to book for an exchange. `size` says how many tokens it brought, and could get at most
    (`known`: without taking long), `passed` is what of the answer went by.

    Refused requests cost nothing. An answer that broke is not charged: what it cost is absorbed.
    Who leaves pays for what was used until then. Counts that cannot be true are not believed.
    """
    told = record.usage
    if record.outcome is Outcome.DONE and told is not None:
        return _believed(record, told, size, passed, known=known)
    if record.outcome is Outcome.REFUSED:
        return BillableUsage(told or _NOTHING)
    if record.outcome is Outcome.FAILED:
        if record.first_byte is None:
            return BillableUsage(told or _NOTHING, not_charged=told is not None)
        return BillableUsage(_guess(record, size(), passed), estimated=True, not_charged=True)
    if not record.provider:
        return BillableUsage(_NOTHING)  # nobody was asked
    return BillableUsage(_guess(record, size(), passed), estimated=True)


def _believed(
    record: UsageRecord,
    told: Usage,
    size: Callable[[], RequestSize],
    passed: ResponseSample,
    *,
    known: bool,
) -> BillableUsage:
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
        told = clamp_parts(told)
    return BillableUsage(told, estimated=told != record.usage)


def _possible(
    record: UsageRecord,
    told: Usage,
    read: int,
    wrote: int,
    size: RequestSize,
    passed: ResponseSample,
) -> Usage:
    allowed = _SLACK * size.output if size.limited else max(_LONGEST, _SLACK * size.output)
    said = wrote - min(told.reasoning, _LONGEST)
    wrong = said > allowed or wrote > allowed + _LONGEST
    if wrong:
        wrote = min(_written(record, size, passed), wrote)
    elif not wrote and record.operation not in SILENT:
        wrote = estimate_output_tokens(passed.size, passed.sample)
        wrong = wrote > 0
    if not read or read > _LONGEST + _SLACK * size.input:
        read, wrong = size.usual, True
    return clamp_parts(msgspec.structs.replace(told, input=read, output=wrote)) if wrong else told


def _guess(record: UsageRecord, size: RequestSize, passed: ResponseSample) -> Usage:
    """What is known, and for the rest what passed makes likely, or else the time that passed."""
    told = record.usage or _NOTHING
    if size.later and record.outcome is Outcome.DONE:
        return clamp_parts(msgspec.structs.replace(told, input=size.input, output=size.output))
    wrote = 0
    if record.first_byte is not None and record.operation not in SILENT:
        wrote = _written(record, size, passed)
    return msgspec.structs.replace(
        told, input=told.input or size.usual, output=max(told.output, wrote)
    )


def _written(record: UsageRecord, size: RequestSize, passed: ResponseSample) -> int:
    wrote = estimate_output_tokens(passed.size, passed.sample)
    if not wrote:
        time = record.duration - (record.first_byte or 0.0)
        wrote = min(int(time * _TOKENS_A_SECOND) + 1, size.output)
    return wrote
