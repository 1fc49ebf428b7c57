"""One HTTP exchange through the proxy, from its first key to its record."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._watch import ClientGoneError, Deadline, Departure
from asgi_aiproxy.errors import APIError, Kind
from asgi_aiproxy.gate import GATE_KEY, Gate
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.body import Body
from asgi_aiproxy.passthrough.books import Books, Ways
from asgi_aiproxy.passthrough.headers import answer_headers, content_length, raw
from asgi_aiproxy.passthrough.kept import Kept
from asgi_aiproxy.passthrough.limits import ask
from asgi_aiproxy.passthrough.meter import Meter
from asgi_aiproxy.passthrough.request import Asked, rewritten
from asgi_aiproxy.passthrough.site import asked as asked_in, model_in
from asgi_aiproxy.passthrough.turns import Turns, rests
from asgi_aiproxy.respond import AnswerBrokeError, internal
from asgi_aiproxy.retry_after import retry_after
from asgi_aiproxy.upstream.base import Incoming, header

logger = logging.getLogger("asgi_aiproxy")

_BROKE = "The upstream broke off in the middle of its answer."
_KEY_FAILED = frozenset({401, 402, 429})
_BODILESS = frozenset({204, 304})
# Sent twice, these mean the same as sent once (RFC 9110, 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
# Where answers name other addresses of the upstream's.
_LOCATIONS = frozenset(
    {"location", "content-location", "operation-location", "azure-asyncoperation"}
    | {"x-goog-upload-url", "x-goog-upload-control-url"}
)

Content = bytes | AsyncIterator[bytes] | None


class Exchange:
    """Passes one request on and its answer back. `run` once, then `close`."""

    def __init__(self, ways: Ways, asked: Asked, scope: Scope, receive: Receive) -> None:
        self._ways = ways
        self._asked = asked
        self._gate: Gate | None = scope.get(GATE_KEY)
        self._body = Body(
            receive,
            length=asked.length,
            limit=ways.max_body,
            replay=ways.max_replay,
        )
        provider = asked.site.provider
        own = provider.timeouts if provider is not None else None
        self._timeouts = own if own is not None else ways.timeouts
        self._books = Books(asked, ways.clock)
        self._turns: Turns | None = None
        self._key: Key | None = None
        self._answer: Incoming | None = None
        self._meter: Meter | None = None
        self._stateful = False
        self._closed = False
        self.began = False

    async def run(self, send: Send) -> None:
        """Have it answered. Raises APIError before, AnswerBrokeError after the answer has begun."""
        try:
            with Departure(self._body.receive), _within(self._timeouts.total):
                content = await self._body.open()
                self._read(content)
                known = content if isinstance(content, bytes) else b""
                await ask(self._gate, self._asked, self._books.model, known)
                answer = await self._answered(content)
                last = await self._pass_on(answer, send)
        except ClientGoneError:
            raise
        except Exception as error:
            self._books.error = error if isinstance(error, APIError) else internal()
            if self.began:
                raise AnswerBrokeError(_BROKE) from error
            raise
        self._books.finished = True
        await self.close()  # who takes the last bytes slowly holds up no key
        await _say(send, {"type": "http.response.body", "body": last, "more_body": False})

    async def close(self) -> None:
        """Free what is held, and leave one record."""
        if self._closed:
            return
        self._closed = True
        record = self._books.record(*(self._meter.told() if self._meter else ("", None)))
        if self._turns is not None:
            if record.usage is not None:
                self._turns.spend(record.usage.input + record.usage.output)
            self._turns.release()
        self._ways.recorder.put(record if self._gate is None else self._gate.settle(record))
        await self._drop()

    # the question

    def _read(self, content: Content) -> None:
        """See who may ask this, and with which keys."""
        asked = self._asked
        whole = content if isinstance(content, bytes) else None
        model = model_in(asked.path)
        if not model and whole is not None and "json" in asked.content_type.lower():
            model = asked_in(whole)[0]
        self._books.model = model
        affinity = asked.affinity
        self._stateful = asked.site.is_stateful(asked.method, asked.path, whole)
        if self._stateful:
            affinity = affinity or f"{asked.principal.id}@{asked.site.name}"
        self._turns = Turns(asked, affinity=affinity, model=model)
        asked.check_model(model)

    # the answer

    async def _answered(self, content: Content) -> Incoming:
        """The answer to pass on: of the first key that does, or else of the last."""
        turns = self._turns
        assert turns is not None  # noqa: S101 (made by `_read`)
        kept: Kept | None = None
        while True:
            try:
                key = self._key = await turns.next()
            except APIError as error:
                # What only some keys know, one that rests may know.
                if kept is None or rests(error):
                    raise
                return kept
            self._books.attempts += 1
            self._books.key_id = self._asked.injected or turns.key_id
            answer = self._answer = await self._send(content, key)
            if not turns.ours or not self._about_key(answer.status):
                turns.settle(answer.status)
                return answer
            kept = await self._refused(answer, key, turns)
            again = content is None or isinstance(content, bytes)
            sought = answer.status == 404 or not self._stateful
            if not (again and sought and turns.several):
                return self._final(kept)

    def _about_key(self, status: int) -> bool:
        """Whether another key may be answered otherwise."""
        return status in _KEY_FAILED or (status == 404 and self._stateful)

    async def _refused(self, answer: Incoming, key: Key | None, turns: Turns) -> Kept:
        """An answer that is about the key; its key is judged."""
        kept = await Kept.of(answer, key.secret if key is not None else "")
        self._answer = None
        asked = self._asked
        if kept.status == 404:
            turns.settle(kept.status)
            return kept
        code = None
        after = retry_after(kept.headers, self._ways.clock())
        if asked.site.provider is not None:
            error = asked.site.provider.dialect.decode_error(kept.status, kept.body)
            code, after = error.code, error.retry_after or after
        turns.settle(kept.status, after, code=code)
        logger.info("%s, key %s: HTTP %d", asked.site.name, turns.key_id, kept.status)
        return kept

    def _final(self, kept: Kept) -> Kept:
        """The last refusal. What an upstream says of our key is no answer to the client's."""
        if kept.status in (401, 402):
            name = self._asked.site.name
            logger.warning("%s refused key %s: HTTP %d", name, self._books.key_id, kept.status)
            raise APIError(Kind.KEY_REJECTED, f"{name!r} refused the gateway's key.")
        return kept

    async def _send(self, content: Content, key: Key | None) -> Incoming:
        """Send the request, twice if it does no harm and the connection was of no use."""
        length = self._asked.length if not isinstance(content, bytes | None) else None
        request = self._asked.outgoing(
            key, body=content, length=length, keep_host=self._ways.keep_host
        )
        limits = self._timeouts
        again = self._asked.method in _IDEMPOTENT and isinstance(content, bytes | None)
        with Deadline(limits.first, "The upstream did not answer in time.") as deadline:
            self._body.deadline = deadline
            try:
                return await self._ways.transport.send(request)
            except APIError as error:
                if not again or error.kind is not Kind.UPSTREAM:
                    raise
            return await self._ways.transport.send(request)

    async def _pass_on(self, answer: Incoming, send: Send) -> bytes:
        """Send all of an answer but its last bytes."""
        status, method = answer.status, self._asked.method
        self._books.status = status
        if not 200 <= status <= 599:
            raise APIError(Kind.UPSTREAM, f"The upstream answered with a status of {status}.")
        await self._begin(answer, send)
        if method == "HEAD" or status in _BODILESS:
            return b""
        length = content_length(answer.headers)
        read, meter = answer.read, self._meter
        with Deadline(self._timeouts.idle, "The upstream fell silent.") as deadline:
            self._body.deadline = deadline
            while data := await read():
                if meter is not None:
                    meter.feed(data)
                if length is not None:
                    length -= len(data)
                    if length <= 0:
                        return data
                deadline.busy = True
                await _say(send, {"type": "http.response.body", "body": data, "more_body": True})
                deadline.busy = False
                deadline.since = deadline.now()
        return b""

    async def _begin(self, answer: Incoming, send: Send) -> None:
        asked = self._asked
        bodiless = answer.status in _BODILESS
        passed = answer_headers(answer.headers, asked.site.policy, bodiless=bodiless)
        headers = raw(
            [
                (name, rewritten(name, value, asked, self._key) if name in _LOCATIONS else value)
                for name, value in passed
            ]
        )
        if self._books.key_id:
            headers.append((b"x-auth-id", self._books.key_id.encode("latin-1", "replace")))
        if self._ways.metered and asked.method == "POST" and answer.status < 300:
            # (What is asked for again, like a stored answer, was counted when it was made.)
            self._meter = Meter.for_type(
                header(answer.headers, "content-type") or "",
                header(answer.headers, "content-encoding") or "",
            )
        self.began = True
        self._books.began()
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await _say(send, start)

    async def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            try:
                await answer.aclose()
            except Exception:  # of a transport that is not ours
                logger.warning("an answer could not be closed", exc_info=True)


def _within(seconds: float | None) -> AbstractContextManager[object]:
    return Deadline(seconds, "It took too long.") if seconds is not None else nullcontext()


async def _say(send: Send, message: _asgi.Message) -> None:
    try:
        await send(message)
    except OSError as error:
        raise ClientGoneError("The client left.") from error
