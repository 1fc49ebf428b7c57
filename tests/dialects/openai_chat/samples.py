"""Samples for several tests of OpenAI's dialect."""

from __future__ import annotations

import json
from typing import Any

from asgi_aiproxy.dialects import OPENAI_CHAT, Operation
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
)
from asgi_aiproxy.messages import (
    Request,
    Response,
    StopReason,
)
from asgi_aiproxy.translate import NativeStreamTranslator
from tests.support import chat_stream_reader as strict
from tests.support.dialect_requests import openai

CHAT = Operation("chat.completions", "/chat/completions", chat=True)


PNG = "iVBORw0KGgo="


PNG_URL = f"data:image/png;base64,{PNG}"


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
}


CLOCK = {"type": "function", "function": {"name": "clock"}}


def head(body: Any, operation: Operation = CHAT) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OPENAI_CHAT.summarize(operation, data)


def call(call_id: str = "call_1", arguments: Any = "{}", name: str = "weather") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


NAMED = {"type": "function", "function": {"name": "weather"}}


def completion(message: dict[str, Any], finish: Any = "stop", **members: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps(
        {"id": "chatcmpl-1", "model": "gpt-test", "choices": [choice], **members}
    ).encode()


def replayed(blocks: tuple[Any, ...], how: str) -> tuple[Any, ...]:
    """The message that an OpenAI client sends back for an answer, decoded again."""
    answer = Response(id="x", model="m", blocks=blocks, stop=StopReason.END)
    request = Request(model="m", messages=())
    if how == "whole":
        body = json.loads(OPENAI_CHAT.encode_response(answer, request))
        message = body["choices"][0]["message"]
    else:
        message = streamed(answer, request).model_dump(exclude_none=how != "dumped")
    (said,) = openai([message]).messages
    return said.parts


def streamed(answer: Response, request: Request) -> Any:
    """A stream of the answer, collected by OpenAI's own client."""
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    from asgi_aiproxy.messages import unfold

    encoder = OPENAI_CHAT.encoder(request)
    chunks, _ = strict.chunks_in(b"".join([encoder.feed(event) for event in unfold(answer)]))
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.get_final_completion().choices[0].message


def normalized(chunks: list[dict[str, Any]], *, wanted: bool = True, spaces: bool = False) -> bytes:
    separators = None if spaces else (",", ":")
    frames = [json.dumps(chunk, separators=separators).encode() for chunk in chunks]
    data = b"".join(b"data: " + frame + b"\n\n" for frame in [*frames, b"[DONE]"])
    verbatim = NativeStreamTranslator(NormalizingNativeStream(usage_wanted=wanted, new_id="new"))
    # Frame by frame, and all at once.
    parts = [part + b"\n\n" for part in data.split(b"\n\n")[:-1]]
    out = b"".join([verbatim.feed(part) for part in parts]) + verbatim.close()
    other = NativeStreamTranslator(NormalizingNativeStream(usage_wanted=wanted, new_id="new"))
    assert other.feed(data) + other.close() == out
    return out
