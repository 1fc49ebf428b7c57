"""Estimate the usage of a call whose provider reported none or an impossible one.

A provider reports usage at the end, so a disconnect or a broken stream has none. Then input tokens
are taken from the request, output tokens from what was sent to the client, or else from the
duration.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asgi_aiproxy.exchange.admission import EMPTY_SAMPLE, ResponseSample
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices.token_estimate import RequestSize, estimate_output_tokens
from asgi_aiproxy.usage.record import Outcome, UsageRecord, clamp_parts

# Output speed of models, for responses of which nothing but the duration is known.
_TOKENS_PER_SECOND = 50
_NO_USAGE = Usage()
# The most tokens of one call, unless _SLACK times the estimate is more.
_MAX_TOKENS, _SLACK = 1_000_000, 2
_USUAL_TOKENS = 32_768  # reports below this are believed without an estimate
# Operations whose answers hold no tokens.
SILENT = frozenset({"embeddings", "embedContent", "batchEmbedContents", "moderations"}) | {
    *("in_process.embeddings", "rerank", "rerank.v1")
}


class BillableUsage(msgspec.Struct, frozen=True):
    """`estimated`: not all of it was reported by the provider. `not_charged`: the caller does not
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
    by_units: bool = False,
) -> BillableUsage:
    """The usage to charge for an exchange.

    `size` returns the estimated size of the request (`known`: it is cached), `passed` is a sample
    of the response. `by_units`: the usage is complete, because the model is priced by images,
    characters, seconds or search units. Refused requests cost nothing. A response that broke off is
    not charged. A client that disconnects pays for what was used until then. Impossible counts are
    replaced.
    """
    reported = record.usage
    if record.outcome is Outcome.DONE and reported is not None:
        if by_units:
            return BillableUsage(clamp_parts(reported))
        units = reported.images or reported.characters or reported.audio_seconds
        if reported.input or reported.output or not units or record.operation in SILENT:
            return _checked(record, reported, size, passed, known=known)
    if record.outcome is Outcome.REFUSED:
        return BillableUsage(reported or _NO_USAGE)
    if record.outcome is Outcome.FAILED:
        if record.first_byte is None:
            return BillableUsage(reported or _NO_USAGE, not_charged=reported is not None)
        return BillableUsage(_guess(record, size(), passed), estimated=True, not_charged=True)
    if not record.provider:
        return BillableUsage(_NO_USAGE)  # no request was sent
    return BillableUsage(_guess(record, size(), passed), estimated=True)


def _checked(
    record: UsageRecord,
    reported: Usage,
    size: Callable[[], RequestSize],
    passed: ResponseSample,
    *,
    known: bool,
) -> BillableUsage:
    """The reported usage, with estimates in place of impossible counts.

    A model does not read more than _MAX_TOKENS tokens beyond the request, nor write much more than
    the request allows, except for reasoning; and a response has both input and output.
    """
    # (Some providers report parts beside the whole count.)
    read = max(reported.input, reported.cache_read + reported.cache_write)
    wrote = max(reported.output, reported.reasoning)
    silent = record.operation in SILENT
    # (Estimating the size costs time; most calls do not need it.)
    usual = 0 < read < _USUAL_TOKENS and (0 < wrote < _USUAL_TOKENS or (silent and not wrote))
    if not usual or known:
        reported = _possible(record, reported, read, wrote, size(), passed)
    if min(msgspec.structs.astuple(reported)) < 0:
        reported = clamp_parts(reported)
    return BillableUsage(reported, estimated=reported != record.usage)


def _possible(
    record: UsageRecord,
    reported: Usage,
    read: int,
    wrote: int,
    size: RequestSize,
    passed: ResponseSample,
) -> Usage:
    allowed = _SLACK * size.output if size.limited else max(_MAX_TOKENS, _SLACK * size.output)
    said = wrote - min(reported.reasoning, _MAX_TOKENS)
    wrong = said > allowed or wrote > allowed + _MAX_TOKENS
    if wrong:
        wrote = min(_written(record, size, passed), wrote)
    elif not wrote and record.operation not in SILENT:
        wrote = estimate_output_tokens(passed.size, passed.sample)
        wrong = wrote > 0
    if not read or read > _MAX_TOKENS + _SLACK * size.input:
        read, wrong = size.usual, True
    return (
        clamp_parts(msgspec.structs.replace(reported, input=read, output=wrote))
        if wrong
        else reported
    )


def _guess(record: UsageRecord, size: RequestSize, passed: ResponseSample) -> Usage:
    """Estimate from the reported part, the sample of the response, or else the duration."""
    reported = record.usage or size.units
    if size.later and record.outcome is Outcome.DONE:
        return clamp_parts(msgspec.structs.replace(reported, input=size.input, output=size.output))
    wrote = 0
    if record.first_byte is not None and record.operation not in SILENT:
        wrote = _written(record, size, passed)
    return msgspec.structs.replace(
        reported, input=reported.input or size.usual, output=max(reported.output, wrote)
    )


def _written(record: UsageRecord, size: RequestSize, passed: ResponseSample) -> int:
    wrote = estimate_output_tokens(passed.size, passed.sample)
    if not wrote:
        time = record.duration - (record.first_byte or 0.0)
        wrote = min(int(time * _TOKENS_PER_SECOND) + 1, size.output)
    return wrote
