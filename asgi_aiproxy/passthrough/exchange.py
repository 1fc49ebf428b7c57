"""Pass one HTTP request to the upstream and its response back, and write one usage record.

Theory of operation. `Exchange.run` goes through these steps, all watched by a RequestMonitor that
cancels them when the client disconnects or a timeout expires:

1. Read the request body. A short one is read completely, so that it can be sent again with another
   key; a longer one is streamed and sent once. A body that decides what the caller may do (the
   caller is bound to models, or has a budget) is read completely and inspected, except multipart
   forms, which are checked while they stream.
2. Check the models against the caller's, reserve the caller's limits and budget (`admission`), and
   find the key that holds a resource the request refers to.
3. Send it with one key after the other until a response is not a refusal of the key (see
   `key_rotation`). Only refusals are read completely; every other response streams.
4. Stream the response to the client, its headers filtered, the pool's key redacted from errors,
   while a UsageMeter copies the two ends that report the usage. From the first byte on
   (`response_started`) a failure raises ResponseAbortedError, so that the server closes the
   connection: a partial response never looks complete.
   With hooks, they run after step 1 on a body that is read completely, and their filters see the
   response before it is sent (see `hooks`, `guarded_response`).
5. `close` releases the key, settles the reservation and hands over the record. It runs before the
   last bytes are sent, so that a client that reads slowly does not keep a key in use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from functools import partial

from asgi_aiproxy._asgi import RawHeaders, Receive, Send
from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor
from asgi_aiproxy._control_headers import key_headers
from asgi_aiproxy._request_id import named
from asgi_aiproxy.credentials import BlotErrors
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope, internal_error
from asgi_aiproxy.exchange.admission import (
    GATE_KEY,
    AdmissionControl,
)
from asgi_aiproxy.exchange.record import close_response, reported_usage
from asgi_aiproxy.exchange.responses import ResponseAbortedError
from asgi_aiproxy.inspection import Inspection
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.passthrough.admission import check_admission
from asgi_aiproxy.passthrough.body import Content
from asgi_aiproxy.passthrough.buffered_response import BufferedResponse, redacted
from asgi_aiproxy.passthrough.context import ProxyContext, add_labels, new_record
from asgi_aiproxy.passthrough.headers import declared_length, read_response_headers
from asgi_aiproxy.passthrough.hooks import ProxiedCall
from asgi_aiproxy.passthrough.inspection import body_members, models_outside_body
from asgi_aiproxy.passthrough.key_rotation import ProxyKeyRotation, is_key_cooling
from asgi_aiproxy.passthrough.location_rewrite import rewrite_location
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.passthrough.request_content import read_request_content
from asgi_aiproxy.passthrough.resource_tracking import resource_tracker
from asgi_aiproxy.passthrough.usage_meter import UsageMeter, sample_for_estimate
from asgi_aiproxy.upstream.base import UpstreamResponse, end_check, header
from asgi_aiproxy.usage.record import UsageRecord

logger = logging.getLogger("asgi_aiproxy")

_MODEL_UNREADABLE = "this request does not name the one it calls where it can be read"
_BROKE = "The upstream closed the connection in the middle of its response."
_KEY_STATUSES = frozenset({401, 402, 429})
# Statuses whose cause is only known from the response body: key, model or request.
_BODY_EXPLAINS = frozenset({400, 403, 404, 412, 413, 498})
_BODILESS = frozenset({204, 304})


class Exchange:
    """One proxied request. Call `run` once, then `close`."""

    __slots__ = (
        "_admission",
        "_answer",
        "_call",
        "_closed",
        "_context",
        "_key",
        "_keys",
        "_meter",
        "_metered",
        "_monitor",
        "_record",
        "_request",
        "_stateful",
        "_timeouts",
        "_tracker",
        "response_started",
        "written",
    )

    def __init__(self, context: ProxyContext, request: ProxyRequest) -> None:
        self._context = context
        self._request = request
        self._admission: AdmissionControl | None = request.scope.get(GATE_KEY)
        provider = request.target.provider
        provider_timeouts = provider.timeouts if provider is not None else None
        self._timeouts = provider_timeouts if provider_timeouts is not None else context.timeouts
        limits = self._timeouts
        self._monitor = RequestMonitor(
            context.rounds.for_running_loop(), total=limits.total, idle=limits.idle
        )
        self._record = new_record(request, context)
        self.written: UsageRecord | None = None  # once the exchange is closed
        self._keys: ProxyKeyRotation | None = None
        self._key: Key | None = None
        self._answer: UpstreamResponse | None = None
        self._meter: UsageMeter | None = None
        # Usage is read for the token limits of keys, for records and for budgets only.
        self._metered = provider is not None or context.recorded or self._admission is not None
        self._tracker = resource_tracker(context.resources, context.ownership, request)
        self._stateful = False
        self._closed = False
        self._call: ProxiedCall | None = None  # what hooks see
        self.response_started = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer the request.

        Raises APIError before the response has started, ResponseAbortedError afterwards, and
        ClientGoneError if the client disconnects.
        """
        request, context, tracker = self._request, self._context, self._tracker
        try:
            with self._monitor:
                body, named = await read_request_content(
                    context,
                    request,
                    receive,
                    self._monitor,
                    peek=self._metered,
                    change=self._run_hooks if context.hooks is not None else None,
                    references=tracker is not None and tracker.reads_body,
                )
                if named.fields:
                    add_labels(self._record, request, context, named.fields)
                known_body = body if isinstance(body, bytes) else b""
                models = self._models(named)
                given = self._call.encoded_response() if self._call is not None else None
                if given is not None:
                    last = await self._send_response(given, send)
                else:
                    keys = self._keys = await self._select_keys(known_body, named)
                    if self._admission is not None:
                        await check_admission(
                            self._admission, request, models, named.fields, known_body
                        )
                    if self._tracker is not None:
                        self._tracker.watch_upload(body)
                    answer = await self._get_response(body, keys)
                    if self._tracker is not None and keys.using_pool_key:
                        answer = await self._tracker.read(answer, keys.key_id)
                    if self._call is not None:
                        answer = await self._filtered(self._call, answer)
                    last = await self._send_response(answer, send)
                    if self._tracker is not None and self._meter is not None:
                        await self._tracker.note_stream(self._meter.head, keys.key_id)
        except ClientGoneError:
            raise
        except Exception as error:
            self._record.error = error if isinstance(error, APIError) else internal_error()
            if self.response_started:
                raise ResponseAbortedError(_BROKE) from error
            raise
        self._record.finished = True
        await self.close()  # before the last bytes: a slow client keeps no key in use
        try:
            await send({"type": "http.response.body", "body": last, "more_body": False})
        except OSError as error:
            raise ClientGoneError("The client disconnected.") from error

    async def close(self) -> None:
        """Release the key, settle the admission and write the usage record; only once."""
        if self._closed:
            return
        self._closed = True
        self._record.longest_pause = self._monitor.longest_pause
        reported: tuple[str, Usage | None] = ("", None)
        if self._meter is not None:
            reported = reported_usage(self._meter.reported, self._request.target.name)
        try:
            if self._keys is not None:
                self._keys.release(reported[1])
        finally:
            if self._admission is not None or self._context.recorded or self._call is not None:
                self.written = self._record.write(
                    reported,
                    gate=self._admission,
                    recorder=self._context.recorder,
                    sample=sample_for_estimate(self._meter, reported[1], self._record.finished),
                    loop=self._monitor.timer.loop,
                    prices=self._context.receipts.prices,
                )
                if self._call is not None:
                    self._run_hooks_after(self._call, self.written)
        answer, self._answer = self._answer, None
        if answer is not None:
            await close_response(answer)

    # the request

    async def _run_hooks(self, body: bytes) -> bytes | None:
        """Run the hooks; return the body to send. Raises APIError if they refuse the request."""
        hooks = self._context.hooks
        assert hooks is not None  # noqa: S101 (else it is not called)
        self._call = await hooks.before(self._request, body)
        self._request = self._request.with_headers(self._call.sent_headers)
        return self._call.body_to_send() or None

    def _models(self, named: Inspection) -> tuple[str, ...]:
        """Return all models that the request may call; an empty name among them if that is
        uncertain.

        Raises APIError if the caller may not use one of them.
        """
        request, route = self._request, self._request.route
        name = "" if route.batch else route.model or named.model
        self._record.requested_model = self._record.upstream_model = name
        if self._admission is None and not request.principal.models:
            return ()  # nothing depends on them
        # These models are called. Others that are named may be called as well, or be ignored.
        called = (*route.models, *(named.calls if route.batch else (named.model,)))
        models = tuple(dict.fromkeys(model for model in called if model or route.batch))
        request.check_models(models, "" if route.free else _MODEL_UNREADABLE)
        if not request.inspected:
            return models
        beside = named.others
        if not route.free or request.target.provider is None:  # an application may do so on GET
            beside += models_outside_body(request.query, request.headers)
        request.check_models(beside)
        if route.free:
            return models
        if route.batch:
            return ()  # its cost is unknown: priced as a request that names no model
        return tuple(dict.fromkeys((*(models or ("",)), *beside)))

    async def _select_keys(self, body: bytes, named: Inspection) -> ProxyKeyRotation:
        """Return the rotation over the keys that this request may use.

        Raises APIError if it names a resource that the caller may not use.
        """
        request, tracker = self._request, self._tracker
        target, affinity = request.target, request.affinity
        if tracker is not None:
            await tracker.check(body, stored=named.store)
            pool = target.provider.keys if target.provider is not None else None
            self._stateful = tracker.names_resources and pool is not None and len(pool) > 1
            if self._stateful and not affinity:
                affinity = f"{request.principal.id}@{target.name}"
        keys = ProxyKeyRotation(request, affinity=affinity, model=self._record.upstream_model)
        if tracker is not None:
            keys.resource_key_id = tracker.key_id
            self._tracker = None if tracker.is_over else tracker
        return keys

    # hooks

    async def _filtered(self, call: ProxiedCall, answer: UpstreamResponse) -> UpstreamResponse:
        """Return the response as the filters of hooks release it. Raises APIError."""
        hooks = self._context.hooks
        if hooks is None:
            return answer
        kind = header(answer.headers, "content-type") or ""
        coding = header(answer.headers, "content-encoding") or ""
        meter = self._meter_for(answer.status, kind, coding)
        self._monitor.set_timeout(self._timeouts.idle, "The upstream sent nothing for too long.")
        filtered = await hooks.guarded(
            answer,
            call,
            self._request.method,
            monitor=self._monitor,
            observe=meter.feed if meter is not None else _ignore,
            on_failure=partial(setattr, self._record, "error"),
        )
        if filtered is not answer:
            self._meter, self._metered = meter, False  # it has seen the bytes of the upstream
        return filtered

    def _run_hooks_after(self, call: ProxiedCall, written: UsageRecord) -> None:
        hooks = self._context.hooks
        if hooks is not None and hooks.chain.observing:
            hooks.chain.ended(call, written)

    # the response

    async def _get_response(self, content: Content, keys: ProxyKeyRotation) -> UpstreamResponse:
        """Return the response to forward: that of the first key that is accepted, else the last
        refusal.
        """
        request, exchange_record, context = self._request, self._record, self._context
        whole = content is None or isinstance(content, bytes)
        length = None if whole else request.length
        buffered: BufferedResponse | None = None
        unclear: BufferedResponse | None = None
        while True:
            try:
                key = self._key = await keys.next()
            except APIError as error:
                # A key that is cooling down may hold the resource that others did not find.
                buffered = unclear or buffered
                if buffered is None or (buffered.status == 404 and is_key_cooling(error)):
                    raise
                return await self._last_refusal(buffered, exchange_record.failure, keys)
            exchange_record.key_id = request.injected or keys.key_id
            outgoing = request.outgoing(
                key, body=content, length=length, keep_host=context.keep_host
            )
            self._monitor.set_timeout(self._timeouts.first, "The upstream did not answer in time.")
            exchange_record.sent()
            try:
                answer = self._answer = await context.transport.send(outgoing)
            except APIError as error:
                exchange_record.failed(error)
                raise
            status = answer.status
            if not keys.using_pool_key:
                exchange_record.answered(status)
                return answer
            if not self._may_be_about_the_key(answer):
                keys.record_response(status, answer.headers, context.clock())
                exchange_record.answered(status)
                return answer if status < 300 else await redacted(answer, keys.redactor)
            buffered, refusal = await self._refused(answer, keys, content)
            # A resource is held by one key: another key can only help if this one did not find it.
            may_be_elsewhere = status == 404 and keys.has_more_keys
            more = may_be_elsewhere if self._stateful else keys.may_try_another(refusal)
            if refusal.about is RefusalScope.UNCLEAR and unclear is None:
                unclear = buffered
            if not (whole and more):
                return await self._last_refusal(unclear or buffered, refusal, keys)

    def _may_be_about_the_key(self, answer: UpstreamResponse) -> bool:
        """Return whether a response may refuse the key, which its body decides."""
        status = answer.status
        if status in _KEY_STATUSES or (status == 404 and self._stateful):
            return True
        return status in _BODY_EXPLAINS and "json" in (header(answer.headers, "content-type") or "")

    async def _refused(
        self, answer: UpstreamResponse, keys: ProxyKeyRotation, content: Content
    ) -> tuple[BufferedResponse, APIError]:
        """Read a response that may refuse the key, and record the refusal for the key."""
        buffered = await BufferedResponse.of(answer, keys.redactor)
        self._answer = None
        members: Collection[str] = ()
        if buffered.status == 400 and isinstance(content, bytes):
            members = body_members(content)
        error = keys.judge_refusal(
            buffered.status, buffered.headers, buffered.body, self._context.clock(), members
        )
        if buffered.status in _BODY_EXPLAINS and buffered.body.strip() in (b"", b"{}"):
            error.about = RefusalScope.REQUEST  # no reason given: leave it to the caller
        values = self._record.request_id, self._request.target.name, keys.key_id, buffered.status
        logger.info("request %s: provider %s, key %s: HTTP %d", *values)
        self._record.failed(error)
        return buffered, error

    async def _last_refusal(
        self, buffered: BufferedResponse, error: APIError | None, keys: ProxyKeyRotation
    ) -> BufferedResponse:
        """Return the refusal to forward. Raises APIError if it is about the gateway's key."""
        if error is not None and error.upstream_status == buffered.status:
            about_gateway_key = buffered.status in (401, 402) or error.about in (
                RefusalScope.KEY,
                RefusalScope.ACCOUNT,
            )
            if about_gateway_key and error.kind is not ErrorKind.LIMITED:
                rejected, hooks = (
                    keys.gateway_key_error(error, buffered.status),
                    self._context.hooks,
                )
                if hooks is not None and self._call is not None:
                    await hooks.checked_error(rejected, self._call)
                raise rejected
        return buffered.with_retry_after(keys.soonest()) if buffered.status == 429 else buffered

    async def _send_response(self, answer: UpstreamResponse, send: Send) -> bytes:
        """Send all of a response but its last bytes, which are returned."""
        monitor, read = self._monitor, answer.read
        headers, remaining = self._response_headers(answer)
        feed = self._meter.feed if self._meter is not None and self._metered else None
        ended = end_check(answer)
        self.response_started = True
        monitor.client_write_started()
        self._record.first_byte_at = time.perf_counter()
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            monitor.client_write_finished()
            if remaining == 0 or self._request.method == "HEAD":
                return b""
            monitor.set_timeout(self._timeouts.idle, "The upstream sent nothing for too long.")
            error_redactor = self._error_redactor(answer)
            data = await read()
            if data:
                self._record.first_content_at = time.perf_counter()
            monitor.longest_pause = 0.0
            while data:
                if feed is not None:
                    feed(data)
                if remaining is not None:
                    remaining -= len(data)
                last = ended() if remaining is None else remaining <= 0
                if error_redactor is not None and (
                    error_redactor.held or error_redactor.marks(data)
                ):
                    data = error_redactor.feed(data)
                    if last:
                        data += error_redactor.close()
                if last:
                    return data
                if data:
                    monitor.client_write_started()
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    monitor.client_write_finished()
                data = await read()
        except OSError as error:
            if monitor.writing_to_client:
                raise ClientGoneError("The client disconnected.") from error
            raise
        return error_redactor.close() if error_redactor is not None else b""

    def _error_redactor(self, answer: UpstreamResponse) -> BlotErrors | None:
        """Return what removes the pool's key from errors within a success; see `redacted`."""
        keys = self._keys
        if keys is None or keys.redactor is None or answer.status >= 300:
            return None
        return BlotErrors(keys.redactor)

    def _response_headers(self, answer: UpstreamResponse) -> tuple[RawHeaders, int | None]:
        """Return the headers to send, and how many bytes follow, if that is known."""
        request, exchange_record, status = self._request, self._record, answer.status
        exchange_record.status = status
        if not 200 <= status <= 599:
            raise APIError(
                ErrorKind.UPSTREAM, f"The upstream answered with the invalid status {status}."
            )
        headers, read = read_response_headers(
            answer.headers, request.target.policy, self._rewrite_location
        )
        keys = self._keys
        if keys is not None and keys.redactor is not None:
            headers = keys.redactor.headers(headers)
        length = declared_length(read)
        if status in _BODILESS:
            length = 0
        elif length is not None:
            headers.append((b"content-length", b"%d" % length))
        headers += [named(exchange_record.request_id), *key_headers(exchange_record.key_id)]
        if self._metered:
            kind, coding = read.get("content-type", ""), read.get("content-encoding", "")
            self._meter = self._meter_for(status, kind, coding)
        return headers, length

    def _meter_for(self, status: int, kind: str, coding: str) -> UsageMeter | None:
        """Return a meter for a response; None if it does not report usage."""
        if self._request.method != "POST" or status >= 300 or not self._metered:
            return None  # (A stored response that is fetched again was counted before.)
        return UsageMeter.for_type(kind, coding)

    def _rewrite_location(self, name: str, value: str) -> str:
        return rewrite_location(name, value, self._request, self._key)


def _ignore(data: bytes) -> None:
    """See some bytes of a response that reports no usage."""
