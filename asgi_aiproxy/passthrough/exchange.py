"""One HTTP exchange through the proxy, from its first key to its record."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from asgi_aiproxy._asgi import RawHeaders, Receive, Send
from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor
from asgi_aiproxy._request_id import with_id
from asgi_aiproxy.credentials import BlotErrors
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope, internal_error
from asgi_aiproxy.exchange.admission import (
    EMPTY_SAMPLE,
    GATE_KEY,
    AdmissionControl,
    ResponseSample,
    settle,
)
from asgi_aiproxy.exchange.responses import ResponseAbortedError
from asgi_aiproxy.inspection import NOTHING, Inspection
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.multipart import FormParser
from asgi_aiproxy.passthrough.admission import check_admission
from asgi_aiproxy.passthrough.body import Content, read_content
from asgi_aiproxy.passthrough.buffered_response import BufferedResponse, redacted
from asgi_aiproxy.passthrough.context import ExchangeRecord, ProxyContext
from asgi_aiproxy.passthrough.headers import declared_length, read_response_headers
from asgi_aiproxy.passthrough.inspection import (
    body_members,
    check_readable,
    inspect_body,
    is_json,
    models_in_fields,
    models_outside_body,
    peek_model,
)
from asgi_aiproxy.passthrough.key_rotation import ProxyKeyRotation, is_key_cooling
from asgi_aiproxy.passthrough.location_rewrite import rewrite_location
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.passthrough.resource_affinity import created_resource_id
from asgi_aiproxy.passthrough.usage_meter import UsageMeter
from asgi_aiproxy.upstream.base import UpstreamResponse, end_check, header
from asgi_aiproxy.usage.record import plausible_usage

logger = logging.getLogger("asgi_aiproxy")

_UNNAMED = "this request does not name the one it calls where it can be read"
_INSPECTED = "It is inspected before it is sent on, and so it can not be longer."
_BROKE = "The upstream broke off in the middle of its answer."
_KEY_FAILED = frozenset({401, 402, 429})
# What these are about only their bodies say.
_TOLD_WITHIN = frozenset({400, 403, 404, 412, 413, 498})
_BODILESS = frozenset({204, 304})
# Seldom with a body, which is then short; without one they can be sent again.
_BARE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Exchange:
    """Passes one request on and its answer back. `run` once, then `close`."""

    __slots__ = (
        "_answer",
        "_asked",
        "_books",
        "_closed",
        "_gate",
        "_key",
        "_meter",
        "_metered",
        "_stateful",
        "_timeouts",
        "_turns",
        "_watch",
        "_ways",
        "began",
    )

    def __init__(self, ways: ProxyContext, asked: ProxyRequest) -> None:
        self._ways = ways
        self._asked = asked
        self._gate: AdmissionControl | None = asked.scope.get(GATE_KEY)
        provider = asked.site.provider
        own = provider.timeouts if provider is not None else None
        self._timeouts = own if own is not None else ways.timeouts
        limits = self._timeouts
        self._watch = RequestMonitor(
            ways.rounds.for_running_loop(), total=limits.total, idle=limits.idle
        )
        self._books = ExchangeRecord(asked, ways.clock)
        self._turns: ProxyKeyRotation | None = None
        self._key: Key | None = None
        self._answer: UpstreamResponse | None = None
        self._meter: UsageMeter | None = None
        # Keys may have limits; what nobody wants to know else is not read.
        self._metered = provider is not None or ways.recorded or self._gate is not None
        self._stateful = False
        self._closed = False
        self.began = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Have it answered. Raises APIError before, AnswerBrokeError after the answer has begun."""
        asked = self._asked
        try:
            with self._watch:
                body, found = await self._content(receive)
                known = body if isinstance(body, bytes) else b""
                models = self._models(found)
                turns = self._turns = self._read(known, found)
                if self._gate is not None:
                    await check_admission(self._gate, asked, models, found.fields, known)
                if self._stateful:
                    turns.home = await self._home(known)
                answer = await self._answered(body, turns)
                last = await self._pass_on(answer, send)
                if self._stateful:
                    await self._remember(turns)
        except ClientGoneError:
            raise
        except Exception as error:
            self._books.error = error if isinstance(error, APIError) else internal_error()
            if self.began:
                raise ResponseAbortedError(_BROKE) from error
            raise
        self._books.finished = True
        await self.close()  # who takes the last bytes slowly holds up no key
        try:
            await send({"type": "http.response.body", "body": last, "more_body": False})
        except OSError as error:
            raise ClientGoneError("The client left.") from error

    async def close(self) -> None:
        """Free what is held, and leave one record."""
        if self._closed:
            return
        self._closed = True
        model, usage = self._reported()
        try:
            if self._turns is not None:
                self._turns.release(usage)
        finally:
            if self._gate is not None or self._ways.recorded:
                record = self._books.record(model, usage)
                record = settle(self._gate, record, self._passed(usage))
                self._ways.recorder.put(record, self._watch.timer.loop)
        answer, self._answer = self._answer, None
        if answer is not None:
            try:
                await answer.aclose()
            except Exception:  # of a transport that is not ours
                logger.warning("an answer could not be closed", exc_info=True)

    def _reported(self) -> tuple[str, Usage | None]:
        """Model and usage as the answer reported them; nothing, if that cannot be read."""
        if self._meter is None:
            return "", None
        try:
            model, usage = self._meter.told()
            return model, plausible_usage(usage)
        except Exception:
            logger.exception("what %s reports of its usage is unreadable", self._asked.site.name)
            return "", None

    def _passed(self, usage: Usage | None) -> ResponseSample:
        """What of the answer went by, should it not have told its usage to the end."""
        meter = self._meter
        if meter is None or (usage is not None and usage.output and self._books.finished):
            return EMPTY_SAMPLE
        return ResponseSample(meter.size, meter.sample)

    # the question

    async def _content(self, receive: Receive) -> tuple[Content, Inspection]:
        """The body to send, and what it names.

        One that decides what its caller may do is read whole, unless it is a multipart form, which
        is checked as it comes. Raises APIError, ClientGoneError.
        """
        ways, asked = self._ways, self._asked
        inspected = asked.inspected and not asked.route.free
        limit, whole, kind = ways.max_body, ways.whole, None
        if inspected and asked.length != 0:
            kind = check_readable(asked.content_type, asked.content_encoding)
            if kind != "multipart":
                limit = ways.max_inspected if limit is None else min(limit, ways.max_inspected)
                whole = whole or _INSPECTED
        body = await read_content(
            receive,
            self._watch,
            length=asked.length,
            limit=limit,
            replay=ways.max_replay,
            seconds=ways.timeouts.body,
            whole=whole,
            unsized=asked.site.provider is not None or asked.method in _BARE,
        )
        if body is None:
            return body, NOTHING
        if kind is None:
            return body, self._glimpse(body)
        if isinstance(body, bytes):
            return body, await inspect_body(kind, asked.content_type, body)
        form = FormParser.from_content_type(asked.content_type)
        body.observe(form.feed, form.close)
        await body.prefetch(ways.max_replay, lambda: bool(form.field))
        while form.field and form.model is None and not await body.prefetch(body.held):
            pass  # its value, which is short, has not come yet
        form.allow_no_model()  # one that came later would not be judged
        return body, models_in_fields(form.field, form.model)

    def _glimpse(self, body: Content) -> Inspection:
        """What a body names that decides nothing; it passes as it is."""
        if isinstance(body, bytes) and self._metered and is_json(self._asked.content_type):
            return peek_model(body)
        return NOTHING

    def _models(self, found: Inspection) -> tuple[str, ...]:
        """All models that the request may call; an empty one if that is not sure.

        Raises APIError if its caller may not use one of them.
        """
        asked, route = self._asked, self._asked.route
        self._books.model = "" if route.batch else route.model or found.model
        # These are what is called. What else is named may be called as well, or may be ignored.
        called = (*route.models, *(found.calls if route.batch else (found.model,)))
        models = tuple(dict.fromkeys(model for model in called if model or route.batch))
        asked.check_models(models, "" if route.free else _UNNAMED)
        if not asked.inspected or route.free:
            return models
        beside = (*found.others, *models_outside_body(asked.query, asked.headers))
        asked.check_models(beside)
        if route.batch:
            return ()  # what it costs nobody tells: it has the price of what names no model
        return tuple(dict.fromkeys((*(models or ("",)), *beside)))

    def _read(self, body: bytes, found: Inspection) -> ProxyKeyRotation:
        """See which keys are for this."""
        asked = self._asked
        site, route = asked.site, asked.route
        affinity = asked.affinity
        pool = site.provider.keys if site.provider is not None else None
        if pool is not None and len(pool) > 1:
            stateful = route.stateful and found.store is not False
            self._stateful = stateful or site.references.any(body)
            if self._stateful and not affinity:
                affinity = f"{asked.principal.id}@{site.name}"
        return ProxyKeyRotation(asked, affinity=affinity, model=self._books.model)

    # what only one key finds again

    async def _home(self, body: bytes) -> str:
        """The key that has what is asked for; empty if nobody knows."""
        asked = self._asked
        site, resource = asked.site, asked.route.resource
        if site.homes is None or asked.own_key or asked.key_id:
            return ""
        return await site.homes.of([resource] if resource else site.references.all(body))

    async def _remember(self, turns: ProxyKeyRotation) -> None:
        """Note which key has made something."""
        route, homes, meter = self._asked.route, self._asked.site.homes, self._meter
        makes = route.stateful and not route.resource  # what is below a resource is found by that
        if makes and turns.using_pool_key and meter is not None and homes is not None:
            made = created_resource_id(meter.head)
            if made:
                await homes.remember(made, turns.key_id, route.kept)

    # the answer

    async def _answered(self, content: Content, turns: ProxyKeyRotation) -> UpstreamResponse:
        """The answer to pass on: of the first key that does, or else of the last."""
        asked, books, ways = self._asked, self._books, self._ways
        whole = content is None or isinstance(content, bytes)
        length = None if whole else asked.length
        kept: BufferedResponse | None = None
        unclear: BufferedResponse | None = None
        while True:
            try:
                key = self._key = await turns.next()
            except APIError as error:
                # What only some keys know, one that rests may know.
                kept = unclear or kept
                if kept is None or (kept.status == 404 and is_key_cooling(error)):
                    raise
                return self._final(kept, books.failure, turns)
            books.key_id = asked.injected or turns.key_id
            request = asked.outgoing(key, body=content, length=length, keep_host=ways.keep_host)
            self._watch.set_timeout(self._timeouts.first, "The upstream did not answer in time.")
            books.sent()
            try:
                answer = self._answer = await ways.transport.send(request)
            except APIError as error:
                books.failed(error)
                raise
            status = answer.status
            if not turns.using_pool_key:
                books.answered(status)
                return answer
            if not self._may_be_about_the_key(answer):
                turns.record_response(status, answer.headers, ways.clock())
                books.answered(status)
                return await redacted(answer, turns.blot)
            kept, refusal = await self._refused(answer, turns, content)
            # (What only one key knows, others need not be asked for, unless this one is not it.)
            sought = status == 404 and turns.has_more_keys
            more = sought if self._stateful else turns.another(refusal)
            if refusal.about is RefusalScope.UNCLEAR and unclear is None:
                unclear = kept
            if not (whole and more):
                return self._final(unclear or kept, refusal, turns)

    def _may_be_about_the_key(self, answer: UpstreamResponse) -> bool:
        """Whether an answer has to be read before it is known what it is about."""
        status = answer.status
        if status in _KEY_FAILED or (status == 404 and self._stateful):
            return True
        kind = header(answer.headers, "content-type") or ""
        return status in _TOLD_WITHIN and "json" in kind

    async def _refused(
        self, answer: UpstreamResponse, turns: ProxyKeyRotation, content: Content
    ) -> tuple[BufferedResponse, APIError]:
        """An answer that may be about the key, and what it says; its key is judged."""
        kept = await BufferedResponse.of(answer, turns.blot)
        self._answer = None
        members: Collection[str] = ()
        if kept.status == 400 and isinstance(content, bytes):
            members = body_members(content)
        error = turns.refused(kept.status, kept.headers, kept.body, self._ways.clock(), members)
        if kept.status in _TOLD_WITHIN and kept.body.strip() in (b"", b"{}"):
            error.about = RefusalScope.REQUEST  # it says nothing: whoever asked may know
        told = self._books.request_id, self._asked.site.name, turns.key_id, kept.status
        logger.info("request %s: provider %s, key %s: HTTP %d", *told)
        self._books.failed(error)
        return kept, error

    def _final(
        self, kept: BufferedResponse, error: APIError | None, turns: ProxyKeyRotation
    ) -> BufferedResponse:
        """The last refusal. What an upstream says of our key is no answer to the client's."""
        if error is not None and error.upstream_status == kept.status:
            ours = kept.status in (401, 402) or error.about in (
                RefusalScope.KEY,
                RefusalScope.ACCOUNT,
            )
            if ours and error.kind is not ErrorKind.LIMITED:
                raise turns.ours_refused(error, kept.status)
        return kept.again_in(turns.soonest()) if kept.status == 429 else kept

    async def _pass_on(self, answer: UpstreamResponse, send: Send) -> bytes:
        """Send all of an answer but its last bytes."""
        watch, read = self._watch, answer.read
        headers, left = self._head(answer)
        feed = self._meter.feed if self._meter is not None else None
        ended = end_check(answer)
        self.began = True
        watch.client_write_started()
        self._books.began = time.perf_counter()
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            watch.client_write_finished()
            if left == 0 or self._asked.method == "HEAD":
                return b""
            watch.set_timeout(self._timeouts.idle, "The upstream fell silent.")
            veil = self._veil(answer)
            while data := await read():
                if feed is not None:
                    feed(data)
                if left is not None:
                    left -= len(data)
                last = ended() if left is None else left <= 0
                if veil is not None and (b"error" in data or veil.held):
                    data = veil.feed(data)
                    if last:
                        data += veil.close()
                if last:
                    return data
                if not data:
                    continue
                watch.client_write_started()
                await send({"type": "http.response.body", "body": data, "more_body": True})
                watch.client_write_finished()
        except OSError as error:
            if watch.writing_to_client:
                raise ClientGoneError("The client left.") from error
            raise
        return veil.close() if veil is not None else b""

    def _veil(self, answer: UpstreamResponse) -> BlotErrors | None:
        """What takes the pool's key out of errors in a success; other answers are `veiled`."""
        turns = self._turns
        if turns is None or turns.blot is None or answer.status >= 300:
            return None
        return BlotErrors(turns.blot)

    def _head(self, answer: UpstreamResponse) -> tuple[RawHeaders, int | None]:
        """The headers of an answer, and how many bytes follow, if that is known."""
        asked, books, status = self._asked, self._books, answer.status
        books.status = status
        if not 200 <= status <= 599:
            raise APIError(ErrorKind.UPSTREAM, f"The upstream answered with a status of {status}.")
        headers, said = read_response_headers(answer.headers, asked.site.policy, self._relocated)
        turns = self._turns
        if turns is not None and turns.blot is not None:
            headers = turns.blot.headers(headers)
        length = declared_length(said)
        if status in _BODILESS:
            length = 0
        elif length is not None:
            headers.append((b"content-length", b"%d" % length))
        headers = with_id(headers, books.request_id)
        if books.key_id:
            headers.append((b"x-auth-id", books.key_id.encode("latin-1", "replace")))
        if asked.method == "POST" and status < 300 and self._metered:
            # (What is asked for again, like a stored answer, was counted when it was made.)
            kind, coding = said.get("content-type", ""), said.get("content-encoding", "")
            self._meter = UsageMeter.for_type(kind, coding)
        return headers, length

    def _relocated(self, name: str, value: str) -> str:
        return rewrite_location(name, value, self._asked, self._key)
