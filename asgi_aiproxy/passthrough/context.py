"""What the exchanges of one proxy share, and what is known of each for its one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import getrandbits

from asgi_aiproxy._cancellation import TimerRegistry
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.upstream.base import Timeouts, Transport
from asgi_aiproxy.usage.record import Attempt, Outcome, Recorder, UsageRecord


@dataclass(frozen=True)
class ProxyContext:
    """What all exchanges of one proxy share; sizes in bytes."""

    transport: Transport
    recorder: Recorder
    timeouts: Timeouts
    max_body: int | None
    max_replay: int
    max_inspected: int
    whole_body_reason: str  # why bodies have to be read before they are sent on, if they have to
    keep_host: bool
    recorded: bool  # whether anybody wants to know of exchanges
    clock: Callable[[], float]
    rounds: TimerRegistry = field(default_factory=TimerRegistry)


class ExchangeRecord:
    """What is known of one exchange."""

    __slots__ = (
        "_request",
        "_sent_at",
        "_started",
        "_started_ticks",
        "attempts",
        "error",
        "failure",
        "finished",
        "first_byte_at",
        "key_id",
        "model",
        "request_id",
        "status",
    )

    def __init__(self, request: ProxyRequest, clock: Callable[[], float]) -> None:
        self._request = request
        self._started = clock()
        self._started_ticks = time.perf_counter()
        self.first_byte_at: float | None = None  # when the answer did, by the same clock
        self.attempts: list[Attempt] = []
        self._sent_at: float | None = None
        self.failure: APIError | None = None  # of the last attempt that failed
        self.status = 0
        self.model = ""
        self.finished = False
        self.error: APIError | None = None
        self.key_id = request.injected
        self.request_id = request_id(request.scope)

    # attempts

    def sent(self) -> None:
        """A request leaves."""
        self._sent_at = time.perf_counter()

    def answered(self, status: int) -> None:
        """It has the answer that is passed on."""
        self._add_attempt(status, "", "")

    def failed(self, error: APIError) -> None:
        """It failed, or was refused."""
        self.failure = error
        code = error.code or next(iter(error.words), "")
        self._add_attempt(error.upstream_status or 0, code, error.message)

    def _add_attempt(self, status: int, code: str, message: str) -> None:
        sent, self._sent_at = self._sent_at, None
        if sent is not None:
            seconds = time.perf_counter() - sent
            name = self._request.target.name
            made = Attempt(name, self.model, self.key_id, status, code, message, seconds)
            self.attempts.append(made)

    def to_usage_record(self, model: str, usage: Usage | None) -> UsageRecord:
        """The record, with what the answer told of model and usage."""
        request, error = self._request, self.error
        if self._sent_at is not None:  # nobody waited for the answer
            self._add_attempt(0, "", error.message if error is not None else "The client left.")
        attempts = self.attempts
        plain = len(attempts) == 1 and not attempts[0].error
        outcome, status = Outcome.DONE, self.status
        if error is not None:
            judge_refusal = not error.retryable and error.kind is not ErrorKind.INTERNAL
            outcome, status = (Outcome.REFUSED if judge_refusal else Outcome.FAILED), error.status
        elif not self.finished:
            outcome, status = Outcome.CLIENT_DISCONNECTED, 499  # as nginx says
        elif status >= 400:
            failed = status >= 500 or error_kind_for_status(status) is ErrorKind.LIMITED
            outcome = Outcome.FAILED if failed else Outcome.REFUSED
        return UsageRecord(
            id=f"{getrandbits(128):032x}",
            principal=request.principal.id,
            face="passthrough",
            operation=request.route.operation,
            provider=request.target.name,
            requested_model=self.model,
            upstream_model=self.model,
            model=model,
            key_id=self.key_id,
            usage=usage,
            outcome=outcome,
            status=status,
            error=error.message if error is not None else "",
            attempts=len(attempts),
            attempt_details=() if plain else tuple(attempts),
            request_id=self.request_id,
            started=self._started,
            first_byte=self.first_byte_at - self._started_ticks
            if self.first_byte_at is not None
            else None,
            duration=time.perf_counter() - self._started_ticks,
        )
