"""From a call to its answer: attempts, the commit point, and the books.

An attempt leases a key, sends the request and translates the answer up to its first content. Until
then any failure may hand the call to another key or target. From then on the answer is committed:
failures become an error in the stream.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import getrandbits

import msgspec

from asgi_aiproxy._cancellation import ClientGoneError, Deadline, RequestMonitor
from asgi_aiproxy.credentials import SecretRedactor, redactor_for
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.exchange.admission import AdmissionControl, ResponseSample, settle
from asgi_aiproxy.exchange.error_mapping import (
    NO_KEY,
    bad_request_if_provider_said_400,
    classify,
    error_from_response,
    gateway_key_rejected_error,
    model_not_allowed_error,
    model_not_found_error,
    more_relevant_error,
    no_key_error,
)
from asgi_aiproxy.exchange.key_rotation import KeyRotation
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.upstream_request import Plans, PreparedRequest, select_translator
from asgi_aiproxy.keys import Key, NoKeyError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers.base import Router, Target
from asgi_aiproxy.request_limits import RequestLimits
from asgi_aiproxy.translate import RawTranslator, Translator
from asgi_aiproxy.upstream.base import (
    Headers,
    Timeouts,
    Transport,
    UpstreamResponse,
    end_check,
    header,
)
from asgi_aiproxy.usage.record import Outcome, Recorder, UsageRecord, plausible_usage

logger = logging.getLogger("asgi_aiproxy")

# A provider's error page is read up to here, and waited for so many seconds.
_MAX_ERROR = 256 * 1024
_ERROR_WAIT = 10.0
# What follows the last word of a stream, the end of its body, is waited for so many seconds.
_AFTER_END = 1.0
# A longer body is translated in a thread.
_LARGE = 64 * 1024
# Failures of a provider that may have passed a moment later.
_PASSING = frozenset({ErrorKind.UPSTREAM, ErrorKind.OVERLOADED})


class CommittedResponse(msgspec.Struct, frozen=True, gc=False):
    """The head of a committed answer, and its first bytes for the client."""

    media_type: str
    first: bytes
    whole: bool  # `first` is all of it
    headers: Headers  # the provider's
    ignored: tuple[str, ...]
    provider: str
    key_id: str
    blot: SecretRedactor | None  # for what of it is shown


class Relay:
    """Sends calls to the targets a router names.

    `attempts` limits the failures of targets before the call fails (keys that are over a limit or
    refused do not count: there are as many tries as keys). When all targets have failed and the
    failure may pass, they are tried again after `backoff` seconds, doubled each time. `strict`
    refuses requests that a target can not carry whole.
    """

    def __init__(
        self,
        router: Router,
        *,
        transport: Transport,
        recorder: Recorder,
        timeouts: Timeouts | None = None,
        attempts: int = 3,
        backoff: float = 0.25,
        strict: bool = False,
        limits: RequestLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.router = router
        self.transport = transport
        self.recorder = recorder
        self.timeouts = timeouts if timeouts is not None else Timeouts()
        self.attempts = attempts
        self.backoff = backoff
        self.strict = strict
        self.limits = limits if limits is not None else RequestLimits()
        self.clock = clock

    def exchange(self, call: GatewayRequest, watch: RequestMonitor) -> Exchange:
        """An exchange for one call; the caller closes it, and opens and pumps within `watch`."""
        return Exchange(self, call, watch)


class Exchange:
    """One call from its first attempt to its record. `open`, then `pump`, and `close` always.

    `close` frees what is held and writes the one record of this exchange. It is best called before
    the last bytes are sent: who takes them slowly, or not at all, then holds up no key.
    """

    def __init__(self, relay: Relay, call: GatewayRequest, watch: RequestMonitor) -> None:
        self._relay = relay
        self._call = call
        self.watch = watch
        self._started = relay.clock()
        self._ticks = time.perf_counter()
        self._first_byte: float | None = None
        self._failures = 0  # of targets
        self._provider = ""
        self._model = ""
        self._keys = KeyRotation(call, relay.attempts)
        self._plans = Plans(call, strict=relay.strict, limits=relay.limits)
        self._answer: UpstreamResponse | None = None
        self._translator: Translator | None = None
        self._idle: float | None = None
        self._passed = 0  # bytes of the answer
        self._sample = b""
        self._finished = False
        self._closed = False
        self._error: APIError | None = None

    @property
    def request_id(self) -> str:
        """What the exchange is called in answers, errors and logs."""
        return self._call.request_id

    @property
    def finished(self) -> bool:
        """Whether the answer came to its proper end."""
        return self._finished

    # the answer

    async def open(self) -> CommittedResponse:
        """Try targets until one commits. Raises the APIError that is left."""
        try:
            targets = self._targets()
            if self._call.gate is not None:
                await self._admit(self._call.gate, targets)
            reply = await self._try(targets)
        except APIError as error:
            self._error = bad_request_if_provider_said_400(error)
            raise
        self._error = None
        return reply

    def _targets(self) -> Sequence[Target]:
        """Who may answer this caller. Raises APIError if nobody may."""
        call, principal = self._call, self._call.principal
        if not principal.may_use(call.model):
            raise model_not_allowed_error(call.model)
        for other in call.others:
            if not principal.may_use(other):
                raise model_not_allowed_error(other)
        targets = self._relay.router.targets(call.model, call.provider)
        if principal.providers:
            targets = [t for t in targets if principal.may_use_provider(t.provider.name)]
        if not targets:
            raise model_not_found_error(call.model, call.provider)
        if call.own_key:  # one vendor's key is not shown to another
            targets = [t for t in targets if t.provider is targets[0].provider]
        return targets

    async def _try(self, targets: Sequence[Target]) -> CommittedResponse:
        """Try the targets in order, and again while their failures may pass."""
        pause = self._relay.backoff
        failure: APIError | None = None
        unfit: APIError | None = None
        while True:
            passing = False
            for number, target in enumerate(targets, 1):
                self._provider, self._model = target.provider.name, target.model
                self._keys.start_target(target)
                await self._prepare([target])
                try:
                    planned = self._plans.take(target)
                except APIError as error:  # another target may be able to
                    unfit = unfit or error
                    continue
                try:
                    return await self._with_keys(planned, last=number == len(targets))
                except APIError as error:
                    failure = more_relevant_error(failure, error)
                if not self._goes_on(failure):
                    raise failure
                self._log_passed_over(target, failure)
                passing = passing or failure.kind in _PASSING
            failure = failure or unfit
            assert failure is not None  # noqa: S101 (there is at least one target)
            if not passing:
                raise failure
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause *= 2

    async def _prepare(self, targets: Sequence[Target]) -> None:
        """Have a large request translated where that holds up nobody else."""
        if len(self._call.body) > _LARGE:
            await asyncio.to_thread(self._plans.prepare, targets)

    def _goes_on(self, failure: APIError) -> bool:
        """Whether another target may do better, and may be asked."""
        if self._call.upload is not None or self._failures >= self._relay.attempts:
            return False
        if failure.about is RefusalScope.UNCLEAR:
            return self._keys.once_more()
        return failure.retryable or failure.code == NO_KEY or failure.about is RefusalScope.MODEL

    def _log_passed_over(self, target: Target, failure: APIError) -> None:
        told = self._call.request_id, target.provider.name, target.model, failure.message
        logger.warning("request %s: provider %s passed over for model %s: %s", *told)

    async def _admit(self, gate: AdmissionControl, targets: Sequence[Target]) -> None:
        """Ask the gate, and with the same write to the store for a key that is counted there."""
        call = self._call
        self._keys.prefetch(targets[0])
        asked = [
            (t.provider.name, model)
            for t in targets
            if not call.own_key
            for model in (t.model, *call.others)
        ]
        await self._prepare(targets)
        await gate.admit(call.operation.name, asked, lambda: self._plans.sent(targets))

    async def pump(self, write: Callable[[bytes], Awaitable[None]], first: bytes) -> bytes:
        """Write a committed answer, `first` and what follows; returns its last piece unwritten.

        If the answer breaks, that piece is what tells the client so. Raises ClientGoneError if
        `write` raises OSError, or waits for as long as a provider may be silent.
        """
        answer, translator = self._answer, self._translator
        if self._finished or answer is None or translator is None:
            return first
        watch, read, feed, ended = self.watch, answer.read, translator.feed, end_check(answer)
        out = first
        held = b""  # the last piece, which leaves with the end
        try:
            with watch.timeout(self._idle, "The provider fell silent."):
                while not ended():
                    if out:
                        watch.busy = True
                        try:
                            await write(out)
                        except OSError as error:
                            raise ClientGoneError("The client left.") from error
                        watch.busy = False
                    watch.moved = True
                    if translator.ended:  # some leave the connection open
                        watch.shorten_timeout(_AFTER_END)
                    data = await read()
                    watch.moved = True
                    if not data:
                        out = b""
                        break
                    self._passed += len(data)
                    out = feed(data)
                held = out
                out = held + translator.close()
            self._finished = True
        except APIError as error:
            self._keys.without_secret(error)
            error.request_id = self._call.request_id
            out = held + translator.fail(error)
            if translator.ended:
                self._finished = True
            else:
                self._error = error
        return out

    async def _with_keys(self, planned: PreparedRequest, *, last: bool) -> CommittedResponse:
        """Try one target with its keys, one after the other while it is the key that fails."""
        try:
            return await self._key_by_key(planned, last=last)
        finally:
            self._keys.end_target()

    async def _key_by_key(self, planned: PreparedRequest, *, last: bool) -> CommittedResponse:
        call, target = self._call, planned.target
        tried: set[str] = set()
        failure: APIError | None = None
        while True:
            try:
                key = await self._keys.acquire(target, tried)
            except NoKeyError as error:
                if failure is None:
                    raise no_key_error(error, target.provider.name, target.model) from error
                self._failures += 1
                raise self._keys.with_time(failure, target) from None
            try:
                return await self._attempt(planned, key)
            except APIError as error:
                if error.about is None:  # told with a status of 200, or by the connection
                    classify(error, target.provider, model=target.model)
                self._keys.without_secret(error)
                error.provider = target.provider.name
                # The message alone: handlers keep what they are given, and the error the request.
                told = call.request_id, target.provider.name, self._keys.id or "-", error.message
                logger.info("request %s: provider %s, key %s: %s", *told)
                self._keys.failed(error)
                await self._drop_answer()
                failure = more_relevant_error(failure, error)
                if key is None or not self._keys.may_try_another(error, len(tried), last=last):
                    self._failures += 1
                    raise self._keys.with_time(failure, target) from None
                tried.add(key.id)

    async def _attempt(self, planned: PreparedRequest, key: Key | None) -> CommittedResponse:
        call, target, draft = self._call, planned.target, planned.draft
        provider, native = target.provider, planned.native
        streamed = call.stream or call.upload is not None or call.operation.raw
        if call.upload is None:
            outgoing = provider.outgoing(
                draft, key, method="POST", streamed=streamed, body=planned.body
            )
        else:
            body, length = call.upload(target.model)
            headers = {"content-type": call.content_type}
            if length is not None:
                headers["content-length"] = str(length)
            outgoing = provider.request(
                "POST", draft, key, body=body, headers=headers, streamed=streamed
            )
        limits = provider.timeouts if provider.timeouts is not None else self._relay.timeouts
        self._idle = limits.idle
        self._keys.sent()
        with self.watch.timeout(limits.first, "The provider did not answer in time."):
            self._answer = answer = await self._relay.transport.send(outgoing)
            if not 200 <= answer.status < 300:
                raise await self._refusal(planned, answer)
            media_type = header(answer.headers, "content-type") or ""
            self._translator = translator = select_translator(call, provider, native, media_type)
            read, feed, ended = answer.read, translator.feed, end_check(answer)
            first = data = b""
            while not translator.started:
                data = await read()
                if data:
                    first += feed(data)
                if not data or (not translator.started and ended()):
                    first += translator.close()
                    self._finished = True
                    break
        self._sample = data or first
        self._passed = len(self._sample)
        self._first_byte = time.perf_counter() - self._ticks
        self._keys.answered(answer.status, answer.headers, self._relay.clock())
        return CommittedResponse(
            media_type=media_type if isinstance(translator, RawTranslator) else "",
            first=first,
            whole=self._finished,
            headers=answer.headers,
            ignored=draft.ignored,
            provider=provider.name,
            key_id=self._keys.id,
            blot=redactor_for(self._keys.secret),
        )

    async def _refusal(self, planned: PreparedRequest, answer: UpstreamResponse) -> APIError:
        """The error for an answer that is none."""
        page, status = await _error_page(answer), answer.status
        error = error_from_response(
            planned.target.provider,
            status,
            answer.headers,
            page,
            now=self._relay.clock(),
            native=planned.native,
            members=planned.draft.body,
            model=planned.target.model,
        )
        if error.kind is not ErrorKind.KEY_REJECTED:
            return error
        if self._call.own_key:  # its caller can mend that
            return APIError(ErrorKind.UNAUTHORIZED, error.message, status=status, code=error.code)
        told = self._call.request_id, self._provider, self._keys.id, status
        logger.warning("request %s: provider %s refused key %s: HTTP %d", *told)
        return gateway_key_rejected_error(
            error, self._provider, status, had_key=bool(self._keys.id)
        )

    async def _drop_answer(self) -> None:
        answer, self._answer, self._translator = self._answer, None, None
        if answer is not None:
            try:
                await answer.aclose()
            except Exception:  # of a transport that is not ours
                logger.warning("an answer could not be closed", exc_info=True)

    # the books

    def fail(self, error: APIError) -> None:
        """Note why the answer broke, where that was not seen from here."""
        self._error = error

    async def close(self) -> None:
        """End the exchange. One that neither finished nor failed was cut by its client."""
        if self._closed:
            return
        self._closed = True
        model, usage = self._reported()
        self._keys.close(usage, self._error, began=self._first_byte is not None)
        passed = ResponseSample(self._passed, self._sample)
        record = settle(self._call.gate, self._record(model, usage), passed)
        self._relay.recorder.put(record, self.watch.rounds.loop)
        if self._answer is not None:
            await self._drop_answer()

    def _reported(self) -> tuple[str, Usage | None]:
        """Model and usage as the answer reported them; nothing, if that cannot be read."""
        translator = self._translator
        if translator is None:
            return "", None
        try:
            return translator.model, plausible_usage(translator.usage)
        except Exception:
            logger.exception("what provider %s reports of its usage is unreadable", self._provider)
            return "", None

    def _record(self, model: str, usage: Usage | None) -> UsageRecord:
        call, error = self._call, self._error
        if error is not None:
            refused = not error.retryable and error.kind is not ErrorKind.INTERNAL
            outcome, status = (Outcome.REFUSED if refused else Outcome.FAILED), error.status
        elif self._finished:
            outcome, status = Outcome.DONE, 200
        else:
            outcome, status = Outcome.CLIENT_DISCONNECTED, 499  # as nginx says
        id = f"{getrandbits(128):032x}"
        return UsageRecord(
            id=id,
            principal=call.principal.id,
            face=call.face.name,
            operation=call.operation.name,
            provider=self._provider,
            requested_model=call.model,
            upstream_model=self._model,
            model=model,
            key_id=self._keys.id,
            usage=usage,
            outcome=outcome,
            status=status,
            error=error.message if error is not None else "",
            attempts=len(self._keys.tries) or int(self._first_byte is not None),
            attempt_details=tuple(self._keys.tries),
            request_id=call.request_id or id,
            started=self._started,
            first_byte=self._first_byte,
            duration=time.perf_counter() - self._ticks,
        )


async def _error_page(answer: UpstreamResponse) -> bytes:
    """The body of an error, as much of it as comes: its status says what matters."""
    body = bytearray()
    with suppress(APIError), Deadline(_ERROR_WAIT, "The error did not come in time."):
        while len(body) < _MAX_ERROR and (data := await answer.read()):
            body += data
    return bytes(body)
