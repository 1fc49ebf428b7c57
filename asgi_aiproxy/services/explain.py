"""Explain what would happen to a request, and what happened to one, for operators."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.explain import Explanation, RefusalReport
from asgi_aiproxy.prices.applied import describe_price, ratio_text
from asgi_aiproxy.principal import ANONYMOUS, Principal
from asgi_aiproxy.services.usage import RecordOut, UsageService, to_record_out
from asgi_aiproxy.stores.base import Store
from asgi_aiproxy.usage.ledger import Ledger, Query
from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord

Count = Annotated[int, Meta(ge=0, lt=2**53)]


class ExplainQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chat request to explain: its model, the id or name of its caller's token, its input tokens
    and the most output tokens that it allows. `provider` and `key_id` are those that it requests.
    """

    model: str
    principal: str = ""
    size: Count = 0
    output: Count | None = None
    provider: str = ""
    key_id: str = ""


class RequestQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The id of a request, as in its response, in errors and in logs; or that of its record."""

    id: str


class RequestExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a request: `cause` in one sentence, `steps` in order, and its record."""

    request_id: str
    cause: str
    steps: tuple[str, ...]
    record: RecordOut


class Explain(Protocol):
    """Explains a request: `Shim.explain`, with the limits that apply."""

    async def __call__(
        self,
        model: str,
        principal: Principal,
        size: int,
        *,
        output: int | None,
        provider: str,
        key_id: str,
    ) -> Explanation:
        """Explain a chat request. Raises StoreUnavailableError."""


class ExplainService:
    """Explains requests to a gateway. Methods raise APIError and StoreUnavailableError.

    `explain` explains what would happen to one; None if only finished ones can be explained.
    `callers` are those that have no token in the store, by their ids.
    """

    def __init__(
        self,
        store: Store,
        explain: Explain | None,
        ledger: str = "ledger",
        *,
        callers: Mapping[str, Principal] = {},
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._explain = explain
        self._callers = callers
        self._ledger = Ledger(store, name=ledger)
        self._usage = UsageService(store, ledger, clock=clock)
        self._tokens = StoredTokenVerifier(store, clock=clock)

    async def explain(self, query: ExplainQuery) -> Explanation:
        """Explain what would happen to a request now. Nothing is sent or reserved."""
        if self._explain is None:
            message = "This gateway cannot explain requests: AdminApp(..., explain=...) is not set."
            raise APIError(ErrorKind.NOT_FOUND, message, status=501, code="not_configured")
        principal = self._callers.get(query.principal, ANONYMOUS)
        if query.principal and query.principal not in self._callers:
            id = await self._usage.principal(query.principal)
            try:
                principal = await self._tokens.principal_of(id)
            except APIError as error:
                if error.kind is ErrorKind.NOT_FOUND:
                    raise
                refusal = RefusalReport(
                    status=error.status, message=error.message, code=error.code or ""
                )
                return Explanation(model=query.model, principal=id, refusal=refusal)
        return await self._explain(
            query.model,
            principal,
            query.size,
            output=query.output,
            provider=query.provider,
            key_id=query.key_id,
        )

    async def explain_request(self, query: RequestQuery) -> RequestExplanation:
        """Explain a finished request from its usage record."""
        page = await self._ledger.query(Query(request=query.id), limit=1)
        if not page.records:
            raise APIError(
                ErrorKind.NOT_FOUND,
                f"The log has no request {query.id!r}: it may have been refused before it was "
                "read (no valid API key, an unknown path), or be older than the log.",
                code="not_found",
            )
        return explain_record(page.records[0])


def explain_record(record: UsageRecord) -> RequestExplanation:
    """Explain what happened to a request from its usage record."""
    caller = record.principal or "a caller without a name"
    steps = [f"{caller} requested {record.operation} of the model {record.requested_model!r}."]
    details = record.attempt_details
    if record.attempts and not details:
        details = (
            Attempt(record.provider, record.upstream_model, record.key_id, record.status,
                    seconds=record.first_byte or record.duration),
        )  # fmt: skip
    steps += [_attempt(attempt) for attempt in details]
    if record.first_byte is not None:
        steps.append(f"{record.first_byte:.3f} s after its arrival the response began.")
    steps += _cost(record)
    steps.append(f"It ended after {record.duration:.3f} s: {record.outcome}, HTTP {record.status}.")
    return RequestExplanation(
        request_id=record.request_id or record.id,
        cause=_cause(record),
        steps=tuple(steps),
        record=to_record_out(record),
    )


def _attempt(attempt: Attempt) -> str:
    key = f" with key {attempt.key_id}" if attempt.key_id else ""
    status = f"HTTP {attempt.status}" if attempt.status else "no response"
    code = f" ({attempt.code})" if attempt.code else ""
    error = f": {attempt.error}" if attempt.error else ""
    return (
        f"{attempt.started:.3f} s after its arrival it was sent to {attempt.provider} as "
        f"{attempt.model!r}{key}: {status}{code} after {attempt.seconds:.3f} s{error}"
    )


def _cost(record: UsageRecord) -> list[str]:
    """What a request cost, and by what that was computed."""
    sentences = []
    if record.cost is not None:
        dollars = f"${record.cost / 1_000_000:.6f}"
        price = record.price
        if price is None or record.usage is None:
            sentences.append(f"It cost {dollars}.")
        else:
            group = f" of group {record.group!r}" if record.group and ratio_text(price) else ""
            how = describe_price(price, record.usage)
            sentences.append(f"It cost {dollars}: {how}{group}.")
    if record.estimated:
        sentences.append("A part of its usage was estimated.")
    if record.not_charged:
        sentences.append("The caller was not charged.")
    return sentences


def _cause(record: UsageRecord) -> str:
    if record.outcome is Outcome.DONE:
        again = f" with attempt {record.attempts}" if record.attempts > 1 else ""
        return f"It was answered by {record.provider or 'the gateway'}{again}."
    if record.outcome is Outcome.CLIENT_DISCONNECTED:
        return f"The client disconnected after {record.duration:.3f} s."
    if not record.attempts:
        return f"No provider was called: {record.error}"
    if record.first_byte is not None:
        return f"The response of {record.provider} broke off: {record.error}"
    last = record.attempt_details[-1] if record.attempt_details else None
    if last is None:
        return f"{record.provider} was called, but its response was not passed on: {record.error}"
    status = f"HTTP {last.status}" if last.status else "no response"
    others = f", after {record.attempts} attempts" if record.attempts > 1 else ""
    return f"{last.provider} failed ({status}{others}): {record.error}"
