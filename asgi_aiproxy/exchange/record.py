"""What is known of one exchange, and the one usage record that is written of it at its end.

Shims, the proxy and WebSockets note the same steps: `sent` and `answered` or `failed` for each
attempt, then what the client was sent. `write` settles the admission and hands the record over; it
is called once for each exchange, however it ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import getrandbits
from typing import TYPE_CHECKING

from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.exchange.admission import (
    EMPTY_SAMPLE,
    AdmissionControl,
    ResponseSample,
    settle,
)
from asgi_aiproxy.exchange.attribution import NO_LABELS, Labels
from asgi_aiproxy.messages import Usage, add_usage
from asgi_aiproxy.upstream.base import UpstreamResponse
from asgi_aiproxy.usage.record import Attempt, Outcome, UsageRecord, plausible_usage
from asgi_aiproxy.usage.recorder import Recorder

if TYPE_CHECKING:
    from asgi_aiproxy.prices import Pricing

logger = logging.getLogger("asgi_aiproxy")

_MAX_IGNORED, _MAX_NAME_LENGTH = 50, 100  # members in a record, and their characters
_DISCONNECTED = 499  # nginx's status for a client that disconnected


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class ExchangeRecord:
    """One exchange as far as it went.

    Arguments: `principal` is the id of the caller, `face` the client's API, `started` is Unix time
    in seconds; the others are as in `UsageRecord`.

    The exchange sets `provider`, `upstream_model` and `key_id` before each attempt; `status` of the
    response; `first_byte_at` and `first_content_at` (`time.perf_counter()`); `longest_pause` in
    seconds; `ignored`, the members of the request that are not sent; `finished` once the response
    is complete; and `error` if it failed. `emulated` is as in `UsageRecord`. `failure` is the error
    of the last attempt that failed.
    """

    principal: str
    face: str
    operation: str
    request_id: str
    started: float
    requested_model: str = ""
    provider: str = ""
    upstream_model: str = ""
    key_id: str = ""
    labels: Labels = NO_LABELS
    status: int = 200
    first_byte_at: float | None = None
    first_content_at: float | None = None
    longest_pause: float = 0.0
    ignored: tuple[str, ...] = ()
    finished: bool = False
    error: APIError | None = None
    failure: APIError | None = None
    attempts: list[Attempt] = field(default_factory=list)  # empty if the only one succeeded
    emulated: tuple[str, ...] = ()
    _paid: Usage | None = None  # of attempts that failed after a part of them was answered
    _started_ticks: float = field(default_factory=time.perf_counter)
    _answered: bool = False
    _sent_at: float | None = None  # of the current attempt

    def sent(self) -> None:
        """A request is being sent."""
        self._sent_at = time.perf_counter()

    def answered(self, status: int) -> None:
        """It got the response that is passed on."""
        if self.attempts:
            self._add_attempt(status, "", "")
        self._answered, self._sent_at = True, None

    def failed(self, error: APIError) -> None:
        """It failed, or was refused."""
        self.failure = error
        if self._sent_at is not None:
            code = error.code or next(iter(error.words), "")
            self._add_attempt(error.upstream_status or 0, code, error.message)

    def paid(self, usage: Usage) -> None:
        """A part of an attempt that failed was answered, and is charged for."""
        self._paid = add_usage(self._paid, plausible_usage(usage))

    def _add_attempt(self, status: int, code: str, message: str) -> None:
        sent, self._sent_at = self._sent_at, None
        if sent is not None:
            seconds = time.perf_counter() - sent
            started = sent - self._started_ticks
            answer = (status, code, message, seconds, started)
            self.attempts.append(Attempt(self.provider, self.upstream_model, self.key_id, *answer))

    def write(
        self,
        reported: tuple[str, Usage | None],
        *,
        gate: AdmissionControl | None,
        recorder: Recorder,
        sample: ResponseSample = EMPTY_SAMPLE,
        loop: asyncio.AbstractEventLoop | None = None,
        prices: Pricing | None = None,
    ) -> UsageRecord:
        """Settle the exchange with its admission control, and hand its record to `recorder`.

        `reported` are the model and the usage as the provider reported them, `sample` is what to
        estimate the usage by otherwise. `loop` is the running event loop, if it is at hand.
        `prices` price an exchange that the admission control has not priced.
        """
        record = settle(gate, self.to_usage_record(reported), sample)
        if prices is not None and record.cost is None:
            from asgi_aiproxy.usage.pricing import priced_record

            record = priced_record(record, prices)
        recorder.put(record, loop)
        return record

    def to_usage_record(self, reported: tuple[str, Usage | None]) -> UsageRecord:
        """The usage record, with the model and the usage that the provider reported."""
        model, usage = reported
        usage = add_usage(self._paid, usage)
        error = self.error
        if self._sent_at is not None:  # the response was not awaited
            message = error.message if error is not None else "The client disconnected."
            self._add_attempt(0, "", message)
        id = getrandbits(128).to_bytes(16, "big").hex()
        ticks = time.perf_counter()
        outcome, status = self._outcome()
        started = self._started_ticks
        return UsageRecord(
            id=id,
            principal=self.principal,
            face=self.face,
            operation=self.operation,
            provider=self.provider,
            requested_model=self.requested_model,
            upstream_model=self.upstream_model,
            model=model,
            key_id=self.key_id,
            usage=usage,
            outcome=outcome,
            status=status,
            error=error.message if error is not None else "",
            attempts=len(self.attempts) or int(self._answered),
            attempt_details=tuple(self.attempts),
            request_id=self.request_id or id,
            emulated=self.emulated,
            started=self.started,
            first_byte=self.first_byte_at - started if self.first_byte_at is not None else None,
            duration=ticks - started,
            session=self.labels.session,
            tags=self.labels.tags,
            first_content=(
                self.first_content_at - started if self.first_content_at is not None else None
            ),
            longest_pause=round(self.longest_pause, 3) if self.longest_pause else 0.0,
            ignored=_bounded(self.ignored) if self.ignored else (),
        )

    def _outcome(self) -> tuple[Outcome, int]:
        """How the exchange ended, and its status. Not finished, not failed: the client left."""
        error, status = self.error, self.status
        if error is not None:
            refused = not error.retryable and error.kind is not ErrorKind.INTERNAL
            return (Outcome.REFUSED if refused else Outcome.FAILED), error.status
        if not self.finished:
            return Outcome.CLIENT_DISCONNECTED, _DISCONNECTED
        if status < 400:
            return Outcome.DONE, status
        failed = status >= 500 or error_kind_for_status(status) is ErrorKind.LIMITED
        return (Outcome.FAILED if failed else Outcome.REFUSED), status


def _bounded(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of members for a record: they come from the caller."""
    return tuple(name[:_MAX_NAME_LENGTH] for name in names[:_MAX_IGNORED])


def reported_usage(
    read: Callable[[], tuple[str, Usage | None]], provider: str
) -> tuple[str, Usage | None]:
    """Model and usage as the provider reported them; empty if they cannot be read."""
    try:
        model, usage = read()
        return model, plausible_usage(usage)
    except Exception:
        logger.exception("the usage that provider %s reported is unreadable", provider)
        return "", None


async def close_response(response: UpstreamResponse | None) -> None:
    """Close a provider's response; an exception of a third-party transport is logged."""
    if response is not None:
        try:
            await response.aclose()
        except Exception:
            logger.warning("a provider's response could not be closed", exc_info=True)
