"""How one provider answers one request, refuses it, and fails at it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Request, fold
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.received import ReceivedRequest
from asgi_aiproxy.testing.reply import Reply

RetryAfter = Literal["seconds", "date", "ms", "reset", "body"]

_KINDS = {
    401: ErrorKind.UNAUTHORIZED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.LIMITED,
    503: ErrorKind.OVERLOADED,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}


class VendorSimulator(ABC):
    """Answers one request `seen` as a provider of its kind does; `answer` is what to say."""

    overloaded: ClassVar[int] = 503  # the status of a provider that has too much to do
    id_header: ClassVar[str] = ""  # in which it names the request, if it does
    json_type: str = "application/json"
    stream_type: str = "text/event-stream; charset=utf-8"
    required: ClassVar[Mapping[str, Sequence[str]]]  # members of the body, by operation

    def __init__(self, seen: ReceivedRequest, answer: Answer, models: Sequence[str]) -> None:
        self.seen = seen
        self.answer = answer
        self.models = models
        self.id = f"mock{seen.number}"

    # ── answers ──

    def reply(self, answer: Answer, *, stream: bool) -> Reply:
        """The reply that says `answer`."""
        match self.seen.operation:
            case "models":
                listed = self.models_list([self.model_entry(name) for name in self.models])
                reply = Reply.whole(_json.dumps(listed), self.json_type)
            case "model":
                reply = Reply.whole(_json.dumps(self.model_entry(self.seen.model)), self.json_type)
            case _:
                reply = self.chat_reply(answer, stream=stream)
        return with_pacing(reply, answer)

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """The reply to a chat request."""
        if stream:
            return Reply(media_type=self.stream_type, events=tuple(self.events(answer)))
        return Reply.whole(self.body(answer), self.json_type)

    @abstractmethod
    def events(self, answer: Answer) -> Iterator[bytes]:
        """A streamed answer, event by event, as bytes."""

    @abstractmethod
    def body(self, answer: Answer) -> bytes:
        """A whole answer."""

    @abstractmethod
    def model_entry(self, model: str) -> dict[str, Any]:
        """The description of a model."""

    @abstractmethod
    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The list of models."""

    # ── refusals ──

    def refuse(self, key: str | None) -> Reply | None:
        """The reply to a request that a provider would not have answered."""
        seen = self.seen
        if not seen.operation:
            return self.error(404, f"Unknown request URL: {seen.method} {seen.path}.")
        if key is not None and key not in seen.secrets:
            return self.unauthorized()
        if seen.operation not in self.required:
            return None  # it has no body, or a form, which is not taken apart
        if not isinstance(seen.json, dict):
            return self.error(400, "The request body could not be read as a JSON object.")
        missing = self.missing()
        return None if missing is None else self.missing_field_reply(missing)

    def missing(self) -> str | None:
        """The first required member of the body that is absent or empty."""
        members = dict(self.seen.members)
        if self.seen.model:
            members["model"] = self.seen.model  # the path may say it
        names = self.required[self.seen.operation]
        return next((name for name in names if members.get(name) in (None, "", [])), None)

    @abstractmethod
    def missing_field_reply(self, name: str) -> Reply:
        """The reply to a request without the member `name`."""

    @abstractmethod
    def unauthorized(self) -> Reply:
        """The reply to a request without the right key."""

    # ── faults ──

    def error(
        self, status: int, message: str = "", *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """An error answer."""
        body = self.error_body(status, message or reason_phrase(status))
        return Reply.whole(body, self.json_type, status=status, headers=headers)

    @abstractmethod
    def error_body(self, status: int, message: str) -> bytes:
        """The body of an error answer."""

    @abstractmethod
    def frame(self, data: bytes, at: int) -> bytes:
        """`data` as the event number `at` (from 0) of a stream."""

    def broken(self, status: int, message: str, at: int) -> bytes:
        """The event number `at` that is an error in the middle of a stream."""
        return self.frame(self.error_body(status, message), at)

    def rate_limited_reply(self, form: RetryAfter | None, seconds: float) -> Reply:
        """An answer of status 429 that says in this form when to come again."""
        headers: dict[str, str] = {}
        wait = ""
        match form:
            case "seconds":
                headers["retry-after"] = f"{seconds:g}"
            case "date":
                # Dates count whole seconds: rounded up, no client comes too early.
                headers["retry-after"] = formatdate(math.ceil(time.time() + seconds), usegmt=True)
            case "ms":
                headers["retry-after-ms"] = f"{seconds * 1000:.0f}"
            case "reset":
                headers |= self.reset(seconds)
            case "body":
                wait = f" Please try again in {seconds:g}s."
        return self.error(429, f"Rate limit reached.{wait}", headers=headers)

    @abstractmethod
    def reset(self, seconds: float) -> dict[str, str]:
        """The headers of an exhausted limit and when it is reset."""


class DialectSimulator(VendorSimulator):
    """A simulator in a dialect that the library speaks itself."""

    face: InboundDialect

    def events(self, answer: Answer) -> Iterator[bytes]:
        """What the dialect's own encoder writes."""
        encoder = self.face.encoder(self._request(stream=True))
        stream = b"".join(encoder.feed(event) for event in answer.events(self.seen.model))
        for at, event in enumerate(stream.split(b"\n\n")[:-1]):
            yield self.format_event(event + b"\n\n", at)

    def format_event(self, event: bytes, at: int) -> bytes:
        """One of the encoder's events as this provider sends it."""
        return event

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Chat, and the count of its tokens."""
        if self.seen.operation == "token_count":
            count = self.face.encode_token_count(answer.usage.input)
            return Reply.whole(count, self.json_type)
        return super().chat_reply(answer, stream=stream)

    def body(self, answer: Answer) -> bytes:
        """What the dialect's own encoder writes."""
        response = fold(answer.events(self.seen.model))
        return self.face.encode_response(response, self._request(stream=False))

    def error_body(self, status: int, message: str) -> bytes:
        """What the dialect's own encoder writes."""
        return self.face.encode_error(api_error(status, message))

    def _request(self, *, stream: bool) -> Request:
        options = self.seen.members.get("stream_options")
        wanted = isinstance(options, dict) and options.get("include_usage") is True
        return Request(model=self.seen.model, messages=(), stream=stream, stream_usage=wanted)


def with_pacing(reply: Reply, answer: Answer) -> Reply:
    """The reply at the answer's pace."""
    return replace(reply, first_after=answer.first_after, pace=answer.pace)


def api_error(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> APIError:
    """The error a provider means by this status."""
    kind = _KINDS.get(status, ErrorKind.INVALID if status < 500 else ErrorKind.INTERNAL)
    return APIError(kind, message, status=status, param=param, code=code)


def reason_phrase(status: int) -> str:
    """What the status says of itself."""
    if status == 529:
        return "Overloaded"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"
