"""Reads answers with the types of the vendors' own SDKs, enforced, and puts streams together as
their clients do."""

from __future__ import annotations

import json
from typing import Any, get_args

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai import omit
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.readers.answer import events

_MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
# By the type of the event: a union would say of every one of its members why it does not fit.
_RESPONSE_EVENTS = {
    get_args(model.model_fields["type"].annotation)[0]: TypeAdapter(model)
    for model in get_args(get_args(ResponseStreamEvent)[0])
}


def whole(face: str, data: bytes) -> Any:
    """A whole answer as an object of the SDK. Raises pydantic's ValidationError."""
    models: dict[str, Any] = {
        "openai_chat": ChatCompletion,
        "openai_responses": Response,
        "anthropic": Message,
        "gemini": GenerateContentResponse,
    }
    return models[face].model_validate_json(data)


def stream(face: str, data: bytes) -> Any:
    """What the SDK makes of a stream: a whole answer; for Gemini, all chunks."""
    return _STREAMS[face]([json.loads(text) for _, text in events(data) if text != "[DONE]"])


def _chat(chunks: list[Any]) -> ChatCompletion | None:
    state = ChatCompletionStreamState()
    for chunk in chunks:
        if "error" not in chunk:
            state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.current_completion_snapshot if chunks and "error" not in chunks[-1] else None


def _responses(found: list[Any]) -> Any:
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    last = None
    for event in found:
        if event["type"] == "response.failed":  # OpenAI has more codes than its SDK lists
            event["response"]["error"]["code"] = "server_error"
        read = _RESPONSE_EVENTS[event["type"]].validate_python(event)
        if event["type"] == "error" or last == "error":  # the client raises here
            last = "error"
            continue
        last = event["type"]
        state.handle_event(read)
    return state._completed_response


def _messages(found: list[Any]) -> Any:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in found:
        if event["type"] in ("ping", "error"):  # the client skips the one and raises the other
            continue
        snapshot = accumulate_event(
            event=_MESSAGE_EVENT.validate_python(event),
            current_snapshot=snapshot,
            json_bufs=buffers,
        )
    return snapshot


def _gemini(chunks: list[Any]) -> list[GenerateContentResponse]:
    return [GenerateContentResponse.model_validate(c) for c in chunks if "error" not in c]


_STREAMS = {
    "openai_chat": _chat,
    "openai_responses": _responses,
    "anthropic": _messages,
    "gemini": _gemini,
}
