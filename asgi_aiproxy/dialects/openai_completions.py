"""OpenAI's legacy completions (POST /v1/completions). Only served to clients, not called.

Providers that have the endpoint get the request unchanged. For all others the prompt becomes a user
message, and the text of the answer the completion.
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import getrandbits
from typing import Any, ClassVar

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import (
    Clock,
    Encoder,
    InboundDialect,
    NativeStream,
    NewId,
    Operation,
    ProviderRequest,
    RequestSummary,
)
from asgi_aiproxy.dialects.openai_chat import (
    OpenAIChat,
    errors,
    responses,
    schemas,
    split_provider,
)
from asgi_aiproxy.dialects.openai_chat.native_stream import OpenAINativeStream
from asgi_aiproxy.dialects.openai_chat.usage import encode_usage
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockStart,
    Event,
    Message,
    MessageEnd,
    MessageStart,
    Refusal,
    Request,
    Response,
    Text,
)

NAME = "openai_completions"

_OPERATION = Operation("completions", "/completions", chat=True)


class CompletionRequest(msgspec.Struct):
    """The request body as documented by OpenAI."""

    model: str
    prompt: Any = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: schemas.StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    logprobs: int | None = None


_request = msgspec.json.Decoder(CompletionRequest)


def new_id() -> str:
    """Return an id in OpenAI's format."""
    return f"cmpl-{getrandbits(128):032x}"


class OpenAICompletions(InboundDialect):
    """The dialect of legacy completions. `now` and `new_id` are replaced by tests that compare
    bytes.
    """

    name: ClassVar[str] = NAME
    keepalive: ClassVar[bytes | None] = OpenAIChat.keepalive
    request_headers: ClassVar[frozenset[str]] = OpenAIChat.request_headers

    def __init__(self, *, now: Clock = time.time, new_id: NewId = new_id) -> None:
        self._now = now
        self._new_id = new_id

    def match(self, method: str, path: str) -> Operation | None:
        """POST /v1/completions."""
        return _OPERATION if method == "POST" and path == "/v1/completions" else None

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model, streaming and the requested usage."""
        fields = _parsing.fields(body)
        stream = _parsing.member(fields, "stream", _parsing.flag)
        options = _parsing.member(fields, "stream_options", schemas.stream_options)
        return RequestSummary(
            model=_parsing.read_model(fields),
            stream=stream is True,
            fields=fields,
            usage_wanted=bool(options and options.include_usage),
            provider=split_provider(fields),
        )

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Read a completion request as a chat of one message."""
        request = _parsing.body(_request, body)
        for name in ("n", "best_of"):
            if getattr(request, name) not in (None, 1):
                raise invalid(f"'{name}' must be 1 for this model.", name)
        extra = _parsing.members(body, (*CompletionRequest.__struct_fields__, "provider"))
        extra |= {"logprobs": request.logprobs} if request.logprobs else {}
        return Request(
            model=request.model,
            messages=(Message("user", (Text(_prompt(request.prompt)),)),),
            max_tokens=_parsing.limit(request.max_tokens, "max_tokens"),
            temperature=request.temperature,
            top_p=request.top_p,
            stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
            seed=request.seed,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            user=request.user or "",
            stream=bool(request.stream),
            stream_usage=bool(request.stream_options and request.stream_options.include_usage),
            extra={NAME: extra} if extra else {},
        )

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Write a whole completion."""
        text = "".join(b.text for b in response.blocks if isinstance(b, Text | Refusal))
        finish = responses.finish_reason(response.stop, called=False)
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        answer: dict[str, Any] = {
            "id": response.id or self._new_id(),
            "object": "text_completion",
            "created": int(self._now()),
            "model": response.model or request.model,
            "choices": [choice],
        }
        if response.usage is not None:
            answer["usage"] = encode_usage(response.usage)
        if response.conversation:
            answer["conversation"] = response.conversation
        return _json.dumps(answer)

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        return errors.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error frame."""
        return encode_frame(errors.encode_error(error))

    def encoder(self, request: Request) -> Encoder:
        """A new encoder of chunks."""
        return _Encoder(
            usage_wanted=request.stream_usage,
            created=int(self._now()),
            new_id=self._new_id(),
            model=request.model,
        )

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's request, with `model` as its model and usage always requested."""
        return OpenAIChat().native_request(operation, model, fields, stream=stream)

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> NativeStream:
        """A new observer for a response that passes through."""
        return OpenAINativeStream(usage_wanted=usage_wanted)


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        return str(prompt[0])
    if prompt is None:
        raise _parsing.missing_field_error("prompt")
    if not isinstance(prompt, str):
        raise invalid(
            "For this model 'prompt' must be one string, not tokens or several prompts.", "prompt"
        )
    return prompt


class _Encoder:
    """Converts events to the chunks of a completion."""

    def __init__(self, *, usage_wanted: bool, created: int, new_id: str, model: str) -> None:
        self._usage_wanted = usage_wanted
        self._head: dict[str, Any] = {
            "id": new_id,
            "object": "text_completion",
            "created": created,
            "model": model,  # as requested
        }
        self._texts: set[int] = set()
        self._around = b"", b""  # of the text in a chunk

    def feed(self, event: Event) -> bytes:
        """The chunks for one event; reasoning is dropped, as the format has no member for it."""
        if type(event) is BlockDelta:
            if event.index not in self._texts:
                return b""
            return self._around[0] + _json.quote(event.text) + self._around[1]
        match event:
            case MessageStart(answer_id, model):
                self._head["id"] = answer_id or self._head["id"]
                self._head["model"] = model or self._head["model"]
                before, _, after = self._chunk("TEXT", None).rpartition(b'"TEXT"')
                self._around = before, after
            case BlockStart(index, Text() | Refusal()):
                self._texts.add(index)
            case MessageEnd():
                return self._end(event)
        return b""

    def run(self, index: int, texts: list[str]) -> bytes:
        """The chunks for more text of one block."""
        return _json.quote_each(texts, *self._around) if index in self._texts else b""

    def fail(self, error: APIError) -> bytes:
        """Report an error in mid-stream; no `[DONE]` follows."""
        return encode_frame(errors.encode_error(error))

    def _chunk(self, text: str, finish: str | None) -> bytes:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return encode_frame(_json.dumps({**self._head, "choices": [choice]}))

    def _end(self, event: MessageEnd) -> bytes:
        if event.conversation:
            self._head["conversation"] = event.conversation
        out = self._chunk("", responses.finish_reason(event.stop, called=False))
        if self._usage_wanted and event.usage is not None:
            usage = encode_usage(event.usage)
            out += encode_frame(_json.dumps({**self._head, "choices": [], "usage": usage}))
        return out + encode_frame(b"[DONE]")


OPENAI_COMPLETIONS: OpenAICompletions = OpenAICompletions()
