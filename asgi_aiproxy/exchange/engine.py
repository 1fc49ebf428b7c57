"""Send one client request to the routed providers and write one usage record. Theory of operation.

An `Exchange` has three steps, which its caller takes in this order: `open`, `pump`, `close`.

*Attempts.* `open` goes through the targets that the router names, in order. For each it leases an
API key (`KeyRotation`), sends the request, and translates the response until its first content
(text, reasoning, a tool call) or its end. A refusal that is about the key costs the next key of
the same target; one that is about the model or the provider, and a connection that fails, cost the
next target; one that is about the request ends the exchange. `attempts` limits how many targets
may fail. When all of them failed in a way that may pass, they are tried again after a pause.

*The commit point.* The first content commits the exchange to that provider: `open` returns, status
and headers may be sent, and there is no way back. Nothing was sent to the client before it, so an
earlier failure is a plain HTTP error; a later one becomes an error event within the stream
(`Translator.fail`), because a client must never take half a response for a whole one.

*Streaming.* `pump` writes what the translator returns for each chunk, and returns the last piece
unwritten. Its caller calls `close` before it sends that piece: a client that reads its last bytes
slowly then holds no key and no connection.

*Settlement.* `close` releases the keys, has the admission control settle what it had reserved, and
writes the usage record: exactly one for each exchange, however it ends (done, refused, failed,
client disconnected).

The wait for the client and for the provider is limited by the `RequestMonitor` that the caller
passes; `open` and `pump` must run within it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor, TimeoutScope
from asgi_aiproxy.credentials import redactor_for
from asgi_aiproxy.dialects.base import OutboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.exchange.admission import AdmissionControl, ResponseSample
from asgi_aiproxy.exchange.continuation import ResponseWriter
from asgi_aiproxy.exchange.error_mapping import (
    NO_KEY,
    bad_request_if_provider_said_400,
    classify,
    error_from_response,
    gateway_key_rejected_error,
    model_not_allowed_error,
    more_relevant_error,
    no_key_error,
)
from asgi_aiproxy.exchange.follow_ups import CallRequests, gather
from asgi_aiproxy.exchange.guarded import FILTERING, GuardedTranslator, ResponseRefusedError
from asgi_aiproxy.exchange.key_rotation import KeyRotation, RetryRules
from asgi_aiproxy.exchange.record import ExchangeRecord, close_response, reported_usage
from asgi_aiproxy.exchange.relay import CommittedResponse, Relay
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.single_request import read_error_body, request_once
from asgi_aiproxy.exchange.targets import allowed_targets
from asgi_aiproxy.exchange.upstream_request import (
    PreparedRequest,
    PreparedRequests,
    select_translator,
)
from asgi_aiproxy.keys import Key, NoKeyError
from asgi_aiproxy.messages import Request, Response, Usage, unfold
from asgi_aiproxy.providers.base import Target
from asgi_aiproxy.translate import Translator
from asgi_aiproxy.upstream.base import UpstreamResponse, end_check, header, read_end
from asgi_aiproxy.usage.record import UsageRecord

logger = logging.getLogger("asgi_aiproxy")

# How long to wait for the end of the body after the last event of a stream.
_STREAM_END_TIMEOUT_SECONDS = 1.0
# Failures of a provider that may pass by themselves.
_TRANSIENT = frozenset({ErrorKind.UPSTREAM, ErrorKind.OVERLOADED})


class Exchange:
    """One request from its first attempt to its usage record: `open`, `pump`, always `close`.

    `open` and `pump` run within `monitor`. `request_id` is the id of the request in responses,
    errors and logs, `written` the usage record once it is closed, `receipts` where it is shown.
    """

    def __init__(self, relay: Relay, request: GatewayRequest, monitor: RequestMonitor) -> None:
        self._relay = relay
        self._request = request
        self.monitor = monitor
        self.request_id = request.request_id
        self.receipts = relay.receipts
        self._record = ExchangeRecord(
            principal=request.principal.id,
            face=request.face.name,
            operation=request.operation.name,
            request_id=request.request_id,
            started=relay.clock(),
            requested_model=request.model,
            labels=request.labels,
        )
        self._failed_targets = 0
        self._keys = KeyRotation(request, self._record, RetryRules(relay.attempts))
        self._prepared = PreparedRequests(request, relay.strict, relay.limits)
        self._response: UpstreamResponse | None = None
        self._translator: Translator | None = None
        self._idle_seconds: float | None = None
        self._received = 0  # bytes of the response
        self._sample = b""
        self._closed = False
        self.written: UsageRecord | None = None

    @property
    def finished(self) -> bool:
        """Whether the response is complete."""
        return self._record.finished

    @property
    def target(self) -> Target | None:
        """The provider and model of the current or last attempt; None before the first."""
        return self._keys.target

    @property
    def key_id(self) -> str:
        """The id of the API key of the current or last attempt; empty without one."""
        return self._record.key_id

    # attempts

    async def open(self) -> CommittedResponse:
        """Try the targets in order, again while their failures may pass, until one commits.

        Raises the APIError for the client when none did.
        """
        pause = self._relay.backoff
        failure: APIError | None = None
        unsupported: APIError | None = None
        try:
            if self._request.answer is not None:
                return self._answer(self._request.answer)
            targets = allowed_targets(self._relay.router, self._request)
            if self._request.gate is not None:
                await self._admit(self._request.gate, targets)
            while True:
                transient = False
                for number, target in enumerate(targets, 1):
                    self._keys.start_target(target)
                    if self._request.large:
                        await asyncio.to_thread(self._prepared.prepare, [target])
                    try:
                        prepared = self._prepared.take(target)
                    except APIError as error:  # another target may support the request
                        unsupported = unsupported or error
                        continue
                    try:
                        return await self._try_target(prepared, last=number == len(targets))
                    except ResponseRefusedError:
                        raise
                    except APIError as error:
                        failure = more_relevant_error(failure, error)
                    if not self._may_try_next_target(failure):
                        raise failure
                    self._log_passed_over(target, failure)
                    transient = transient or (
                        failure.kind in _TRANSIENT and failure.about is not RefusalScope.REQUEST
                    )
                failure = failure or unsupported
                assert failure is not None  # noqa: S101 (there is at least one target)
                if not transient:
                    raise failure
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause *= 2
        except APIError as error:
            self._record.error = bad_request_if_provider_said_400(error)
            await self._check_texts(error)
            raise

    def _answer(self, response: Response) -> CommittedResponse:
        """The response that a hook gave. Raises APIError if the caller may not use the model."""
        request, face = self._request, self._request.face
        if not request.principal.may_use(request.model):
            raise model_not_allowed_error(request.model)
        if request.stream:
            encoder = face.encoder(request.request)
            first = b"".join([encoder.feed(event) for event in unfold(response)])
        else:
            first = face.encode_response(response, request.request)
        self._finish_at_once()
        return CommittedResponse("", first, True, (), (), "hook", "", None)

    def _finish_at_once(self) -> None:
        """Note that the response is known without a provider."""
        record = self._record
        record.first_byte_at = record.first_content_at = time.perf_counter()
        record.finished = True

    async def _admit(self, gate: AdmissionControl, targets: Sequence[Target]) -> None:
        """Ask the admission control, and reserve a key in the store with the same round trip."""
        request = self._request
        self._keys.prefetch(targets[0])
        candidates = [
            (target.provider.name, model)
            for target in targets
            if not request.own_key and not request.operation.free
            for model in (target.model, *request.others)
        ]
        if request.large:
            await asyncio.to_thread(self._prepared.prepare, targets)
        await gate.admit(request.operation.name, candidates, lambda: self._prepared.sent(targets))

    def _may_try_next_target(self, failure: APIError) -> bool:
        """Whether another target may succeed, and may still be tried."""
        if self._request.sent_once or self._failed_targets >= self._relay.attempts:
            return False
        if failure.about is RefusalScope.UNCLEAR:
            return self._keys.retries.take_unclear_attempt()
        return failure.retryable or failure.code == NO_KEY or failure.about is RefusalScope.MODEL

    def _log_passed_over(self, target: Target, failure: APIError) -> None:
        values = self.request_id, target.provider.name, target.model, failure.message
        logger.warning("request %s: provider %s passed over for model %s: %s", *values)

    async def _try_target(self, prepared: PreparedRequest, *, last: bool) -> CommittedResponse:
        """Try the keys of one target, for as long as it is the key that is refused.

        `last` means that no other target follows.
        """
        if prepared.conversion is not None and (known := prepared.known_response()) is not None:
            self._record.answered(200)
            self._finish_at_once()
            return known
        request, target = self._request, prepared.target
        tried: set[str] = set()
        failure: APIError | None = None
        while True:
            try:
                key = await self._keys.acquire(target, tried)
            except NoKeyError as error:
                if failure is None:
                    raise no_key_error(error, target.provider.name, target.model) from error
                self._failed_targets += 1
                raise self._keys.end_target(target, failure) from None
            try:
                return await self._attempt(prepared, key)
            except ResponseRefusedError:  # by a hook: neither the key nor the provider failed
                raise
            except APIError as error:
                if error.about is None:  # within a response of status 200, or no response
                    classify(error, target.provider, model=target.model)
                self._keys.redact(error)
                error.provider = target.provider.name
                # The message only: log handlers keep their arguments, and the error holds the
                # request.
                logger.info(
                    "request %s: provider %s, key %s: %s",
                    request.request_id,
                    target.provider.name,
                    self._record.key_id or "-",
                    error.message,
                )
                self._keys.failed(error)
                response, self._response, self._translator = self._response, None, None
                await close_response(response)
                failure = more_relevant_error(failure, error)
                if key is None or not self._keys.may_try_another(error, len(tried), last=last):
                    self._failed_targets += 1
                    raise self._keys.end_target(target, failure) from None
                tried.add(key.id)

    async def _attempt(self, prepared: PreparedRequest, key: Key | None) -> CommittedResponse:
        """Send the request with one key, and read the response up to the commit point."""
        request, record = self._request, self._record
        target = prepared.target
        provider = target.provider
        if provider.credentials is not None:
            key = await self._keys.with_credential(key)
        outgoing = prepared.to_upstream_request(request, key)
        timeouts = provider.timeouts if provider.timeouts is not None else self._relay.timeouts
        self._idle_seconds = timeouts.idle
        record.sent()
        with TimeoutScope(self.monitor, timeouts.first, "The provider did not answer in time."):
            self._response = response = await self._relay.transport.send(outgoing)
            if prepared.conversion is not None:
                common = self._relay.transport, prepared, key, request.sent_headers
                call = CallRequests(*common, self._record.paid)
                response, prepared = await gather(call, response)
                self._response = response
            if not 200 <= response.status < 300:
                raise await self._refusal(prepared, response)
            kind = header(response.headers, "content-type") or ""
            translator = select_translator(
                request, prepared, kind, self._request_further, self._writer
            )
            self._translator = translator
            read, feed, ended = response.read, translator.feed, end_check(response)
            guarded = translator if isinstance(translator, FILTERING) else None
            first = data = b""
            while not translator.started:
                data = await read()
                if data:
                    first += feed(data)
                    if guarded is not None:
                        first += await guarded.flush()
                if not data or (not translator.started and ended()):
                    first += translator.close()
                    if guarded is not None:
                        first += await guarded.flush()
                    record.finished = True
                    break
        self._sample = data or first
        self._received = len(self._sample)
        record.first_byte_at = record.first_content_at = time.perf_counter()
        record.ignored = prepared.draft.ignored
        self._keys.answered(response.status, response.headers, self._relay.clock())
        return CommittedResponse(
            media_type="" if request.operation.chat else prepared.media_type(kind, translator),
            first=first,
            whole=record.finished,
            headers=response.headers,
            ignored=record.ignored,
            provider=provider.name,
            key_id=record.key_id,
            redactor=redactor_for(key.secret) if key is not None else None,
            emulated=guarded.emulated if guarded is not None else (),
        )

    async def _request_further(self, request: Request) -> Response:
        """Send one more chat request to the target of the current attempt, with the same key."""
        keys = self._keys
        assert keys.target is not None  # noqa: S101 (an attempt has one)
        sent_headers = self._request.sent_headers
        return await request_once(self._relay, keys.target, keys.key, sent_headers, request)

    def _writer(self, dialect: OutboundDialect) -> ResponseWriter:
        """What writes a response of the current attempt for the client."""
        record = self._record
        return self._relay.continuations.writer(
            self._request, record.provider, record.key_id, dialect
        )

    async def _refusal(self, prepared: PreparedRequest, response: UpstreamResponse) -> APIError:
        """Read an error response, and return its error."""
        body, status = await read_error_body(response), response.status
        error = error_from_response(
            prepared.target.provider,
            status,
            response.headers,
            body,
            now=self._relay.clock(),
            native=prepared.native,
            members=prepared.draft.body,
            model=prepared.target.model,
        )
        if error.kind is not ErrorKind.KEY_REJECTED:
            return error
        if self._request.own_key:  # the caller's own: only the caller can replace it
            return APIError(ErrorKind.UNAUTHORIZED, error.message, status=status, code=error.code)
        logger.warning(
            "request %s: provider %s refused key %s: HTTP %d",
            self.request_id,
            self._record.provider,
            self._record.key_id,
            status,
        )
        return gateway_key_rejected_error(
            error, self._record.provider, status, had_key=bool(self._record.key_id)
        )

    async def _check_texts(self, error: APIError) -> None:
        """Change the texts of a provider's error as the filters of hooks do."""
        said = error.provider or self._response is not None  # (a provider's, not the gateway's)
        filters = self._request.filters
        if said and filters is not None and not isinstance(error, ResponseRefusedError):
            from asgi_aiproxy.exchange.guarded_content import checked_error

            await checked_error(filters(), error)

    # streaming

    async def pump(self, write: Callable[[bytes], Awaitable[None]], first: bytes) -> bytes:
        """Write a committed response, `first` and what follows; return its last piece unwritten.

        If the response breaks, the last piece holds the error event. Raises ClientGoneError if
        `write` raises OSError, or takes longer than a provider may be silent.
        """
        response, translator = self._response, self._translator
        if self._record.finished or response is None or translator is None:
            return first
        monitor, read, feed = self.monitor, response.read, translator.feed
        ended = end_check(response)
        guarded = translator if isinstance(translator, FILTERING) else None
        out = first
        held = b""  # the piece before the end, which is sent together with it
        try:
            with TimeoutScope(monitor, self._idle_seconds, "The provider stopped sending."):
                while not ended():
                    if out:
                        monitor.client_write_started()
                        try:
                            await write(out)
                        except OSError as error:
                            raise ClientGoneError("The client disconnected.") from error
                        monitor.client_write_finished()
                    if translator.ended:
                        out = b""
                        monitor.shorten_timeout(_STREAM_END_TIMEOUT_SECONDS)
                        await read_end(response)
                        break
                    data = await read()
                    monitor.upstream_progressed()
                    if not data:
                        out = b""
                        break
                    self._received += len(data)
                    out = feed(data)
                    if guarded is not None:
                        out += await guarded.flush()
                held = out
                out = held + translator.close()
                if guarded is not None:
                    out += await guarded.flush()
            self._record.finished = True
        except APIError as error:
            self._keys.redact(error)
            await self._check_texts(error)
            error.request_id = self.request_id
            out = held + translator.fail(error)
            if translator.ended:
                self._record.finished = True
            else:
                self._record.error = error
        return out

    # settlement

    def fail(self, error: APIError) -> None:
        """Set the error of the usage record, if the response broke outside this object."""
        self._record.error = error

    async def close(self) -> None:
        """Release the keys and write the usage record; further calls do nothing.

        An exchange that neither finished nor failed was ended by its client.
        """
        if self._closed:
            return
        self._closed = True
        record, translator, key = self._record, self._translator, self._keys.key
        gate, ended = self._request.gate, self._request.ended
        recorded = self._relay.recorded or gate is not None or ended is not None
        reported: tuple[str, Usage | None] = ("", None)
        if translator is not None and (recorded or (key is not None and key.tpm is not None)):
            reported = reported_usage(lambda: (translator.model, translator.usage), record.provider)
        if isinstance(translator, GuardedTranslator):
            record.emulated = translator.emulated
        self._keys.close(reported[1], record.error)
        if recorded:
            record.longest_pause = self.monitor.longest_pause
            self.written = written = record.write(
                reported,
                gate=gate,
                recorder=self._relay.recorder,
                sample=ResponseSample(self._received, self._sample),
                loop=self.monitor.timer.loop,
                prices=self._relay.receipts.prices,
            )
            if ended is not None:
                ended(written)
        if self._response is not None:
            await close_response(self._response)
