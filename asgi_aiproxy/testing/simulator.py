"""The base class of vendor simulators: replies, refusals and faults of one provider."""

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
    """Answers the request `received` as its vendor does; `answer` is the answer to give."""

    overloaded: ClassVar[int] = 503  # status of an overloaded provider
    id_header: ClassVar[str] = ""  # response header with the request id, if the vendor has one
    json_type: str = "application/json"
    stream_type: str = "text/event-stream; charset=utf-8"
    required: ClassVar[Mapping[str, Sequence[str]]]  # required members of the body, by operation

    def __init__(self, received: ReceivedRequest, answer: Answer, models: Sequence[str]) -> None:
        self.received = received
        self.answer = answer
        self.models = models
        self.id = f"mock{received.number}"

    # ── replies ──

    def reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Return the reply with `answer`."""
        match self.received.operation:
            case "models":
                listed = self.models_list([self.model_entry(name) for name in self.models])
                reply = Reply.whole(_json.dumps(listed), self.json_type)
            case "model":
                reply = Reply.whole(
                    _json.dumps(self.model_entry(self.received.model)), self.json_type
                )
            case _:
                reply = self.chat_reply(answer, stream=stream)
        return with_pacing(reply, answer)

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Return the reply to a chat request."""
        if stream:
            return Reply(media_type=self.stream_type, events=tuple(self.events(answer)))
        return Reply.whole(self.body(answer), self.json_type)

    @abstractmethod
    def events(self, answer: Answer) -> Iterator[bytes]:
        """Return the events of a streamed answer as bytes."""

    @abstractmethod
    def body(self, answer: Answer) -> bytes:
        """Return the body of a whole answer."""

    @abstractmethod
    def model_entry(self, model: str) -> dict[str, Any]:
        """Return the description of a model."""

    @abstractmethod
    def models_list(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the body of the model list."""

    # ── refusals ──

    def refuse(self, key: str | None) -> Reply | None:
        """Return the reply to a request that the vendor would refuse; None if it is valid."""
        received = self.received
        if not received.operation:
            return self.error(404, f"Unknown request URL: {received.method} {received.path}.")
        if key is not None and key not in received.secrets:
            return self.unauthorized()
        if received.operation not in self.required:
            return None  # without a body, or with a form, which is not parsed
        if not isinstance(received.json, dict):
            return self.error(400, "The request body could not be read as a JSON object.")
        missing = self.missing()
        return None if missing is None else self.missing_field_reply(missing)

    def missing(self) -> str | None:
        """Return the first required member of the body that is missing or empty."""
        members = dict(self.received.members)
        if self.received.model:
            members["model"] = self.received.model  # the path may name the model
        names = self.required[self.received.operation]
        return next((name for name in names if members.get(name) in (None, "", [])), None)

    @abstractmethod
    def missing_field_reply(self, name: str) -> Reply:
        """Return the reply to a request without the member `name`."""

    @abstractmethod
    def unauthorized(self) -> Reply:
        """Return the reply to a request without the correct key."""

    # ── faults ──

    def error(
        self, status: int, message: str = "", *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Return an error response."""
        body = self.error_body(status, message or reason_phrase(status))
        return Reply.whole(body, self.json_type, status=status, headers=headers)

    @abstractmethod
    def error_body(self, status: int, message: str) -> bytes:
        """Return the body of an error response."""

    @abstractmethod
    def frame(self, data: bytes, index: int) -> bytes:
        """Return `data` as event number `index` (from 0) of a stream."""

    def broken(self, status: int, message: str, index: int) -> bytes:
        """Return event number `index` of a stream, which is an error."""
        return self.frame(self.error_body(status, message), index)

    def rate_limited_reply(self, form: RetryAfter | None, seconds: float) -> Reply:
        """Return a response with status 429 that gives the time to wait in this form."""
        headers: dict[str, str] = {}
        wait = ""
        match form:
            case "seconds":
                headers["retry-after"] = f"{seconds:g}"
            case "date":
                # Dates count whole seconds; they are rounded up, so that no client retries too
                # early.
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
        """Return the headers of an exhausted limit with its reset time."""


class DialectSimulator(VendorSimulator):
    """A simulator of a dialect that this package encodes itself."""

    face: InboundDialect

    def events(self, answer: Answer) -> Iterator[bytes]:
        """Return the events that the dialect's own encoder writes."""
        encoder = self.face.encoder(self._request(stream=True))
        stream = b"".join(encoder.feed(event) for event in answer.events(self.received.model))
        for index, event in enumerate(stream.split(b"\n\n")[:-1]):
            yield self.format_event(event + b"\n\n", index)

    def format_event(self, event: bytes, index: int) -> bytes:
        """Return one event of the encoder as this provider sends it."""
        return event

    def chat_reply(self, answer: Answer, *, stream: bool) -> Reply:
        """Chat, and the count of its tokens."""
        if self.received.operation == "token_count":
            count = self.face.encode_token_count(answer.usage.input)
            return Reply.whole(count, self.json_type)
        return super().chat_reply(answer, stream=stream)

    def body(self, answer: Answer) -> bytes:
        """Return the body that the dialect's own encoder writes."""
        response = fold(answer.events(self.received.model))
        return self.face.encode_response(response, self._request(stream=False))

    def error_body(self, status: int, message: str) -> bytes:
        """Return the error that the dialect's own encoder writes."""
        return self.face.encode_error(api_error(status, message))

    def _request(self, *, stream: bool) -> Request:
        options = self.received.members.get("stream_options")
        names = isinstance(options, dict) and options.get("include_usage") is True
        return Request(model=self.received.model, messages=(), stream=stream, stream_usage=names)


def with_pacing(reply: Reply, answer: Answer) -> Reply:
    """Return the reply with the answer's pauses."""
    return replace(reply, first_after=answer.first_after, pace=answer.pace)


def api_error(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> APIError:
    """Return the error for which providers use this status."""
    kind = _KINDS.get(status, ErrorKind.INVALID if status < 500 else ErrorKind.INTERNAL)
    return APIError(kind, message, status=status, param=param, code=code)


def reason_phrase(status: int) -> str:
    """Return the reason phrase of a status."""
    if status == 529:
        return "Overloaded"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"
