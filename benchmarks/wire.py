"""The bytes on the wire: responses of the mock providers and requests of the clients."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

WHOLE_SIZE = 558
TOKEN = "bench-token"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"

WORDS = [
    *("The", " quick", " brown", " fox", ",", " it", " is", " said", ":\n", " jumps", " over"),
    *(" the", ' "lazy"', " dog", ".", " Then", " it", " sleeps", " a", " while", ".\n\n"),
]


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Stream(NamedTuple):
    """What the mock sends: a whole response, and the parts of a stream."""

    whole: bytes
    head: bytes
    deltas: list[bytes]
    tail: bytes


def openai_chunk(delta: dict[str, str | None], finish: str | None = None, *, usage: bool) -> bytes:
    chunk: dict[str, Any] = {
        "id": "chatcmpl-C9vKQz5RkqTn0hO2b4VxSMd7uWfLe",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    if usage:
        chunk["usage"] = None
    return b"data: " + compact(chunk) + b"\n\n"


def openai(*, usage: bool) -> Stream:
    role: dict[str, str | None] = {"role": "assistant", "content": "", "refusal": None}
    last = {"prompt_tokens": 12, "completion_tokens": 200, "total_tokens": 212}
    counted = json.loads(openai_chunk({}, usage=usage)[6:]) | {"choices": [], "usage": last}
    tail = openai_chunk({}, "stop", usage=usage)
    if usage:
        tail += b"data: " + compact(counted) + b"\n\n"
    return Stream(
        whole=openai_whole(),
        head=openai_chunk(role, usage=usage),
        deltas=[openai_chunk({"content": word}, usage=usage) for word in WORDS],
        tail=tail + b"data: [DONE]\n\n",
    )


def openai_whole() -> bytes:
    """A chat completion of 558 bytes."""

    def made(words: str) -> bytes:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": words,
            "refusal": None,
            "annotations": [],
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
        return compact(
            {
                "id": "chatcmpl-C9vKQz5RkqTn0hO2b4VxSMd7uWfLe",
                "object": "chat.completion",
                "created": 1760000000,
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [choice],
                "usage": usage,
                "service_tier": "default",
                "system_fingerprint": "fp_44709d6fcb",
            }
        )

    return made("x" * (WHOLE_SIZE - len(made(""))))


def anthropic_event(data: dict[str, Any]) -> bytes:
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + compact(data) + b"\n\n"


def anthropic_delta(word: str) -> bytes:
    delta = {"type": "text_delta", "text": word}
    return anthropic_event({"type": "content_block_delta", "index": 0, "delta": delta})


def anthropic() -> Stream:
    message: dict[str, Any] = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 1},
    }
    whole = message | {
        "content": [{"type": "text", "text": "x" * 200}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 12, "output_tokens": 9},
    }
    block = {"type": "text", "text": ""}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return Stream(
        whole=compact(whole),
        head=anthropic_event({"type": "message_start", "message": message})
        + anthropic_event({"type": "content_block_start", "index": 0, "content_block": block})
        + anthropic_event({"type": "ping"}),
        deltas=list(map(anthropic_delta, WORDS)),
        tail=anthropic_event({"type": "content_block_stop", "index": 0})
        + anthropic_event({"type": "message_delta", "delta": end, "usage": {"output_tokens": 200}})
        + anthropic_event({"type": "message_stop"}),
    )


def responses() -> Stream:
    response: dict[str, Any] = {
        "id": "resp_68c0f2a1b4d48190a3e5f6a7b8c9d0e1",
        "object": "response",
        "created_at": 1760000000,
        "status": "in_progress",
        "model": "gpt-5-2025-08-07",
        "output": [],
        "usage": None,
    }
    item = "msg_68c0f2a1b4d48190a3e5f6a7b8c9d0e2"
    place = {"item_id": item, "output_index": 0, "content_index": 0}
    usage = {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 200,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 212,
    }
    message = {"id": item, "type": "message", "status": "in_progress", "role": "assistant"}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}

    def event(kind: str, number: int, **members: Any) -> bytes:
        return anthropic_event({"type": f"response.{kind}", "sequence_number": number, **members})

    def delta(word: str) -> bytes:
        return event("output_text.delta", 4, **place, delta=word, logprobs=[], obfuscation="k2Vp")

    done = {**response, "status": "completed", "usage": usage}
    return Stream(
        whole=compact({**done, "output": [{**message, "content": [{**part, "text": "Hi"}]}]}),
        head=event("created", 0, response=response)
        + event("in_progress", 1, response=response)
        + event("output_item.added", 2, output_index=0, item={**message, "content": []})
        + event("content_part.added", 3, **place, part=part),
        deltas=list(map(delta, WORDS)),
        tail=event("completed", 5, response=done),
    )


def gemini() -> Stream:
    def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {
            "content": {"parts": [{"text": text}], "role": "model"},
            "index": 0,
        }
        if finish is not None:
            candidate["finishReason"] = finish
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": 12,
                "candidatesTokenCount": 200,
                "totalTokenCount": 212,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
            },
            "modelVersion": "gemini-2.5-flash",
            "responseId": "k2VpaPmXDZ2xvdIP0Y6_gQk",
        }

    def event(text: str, finish: str | None = None) -> bytes:
        return b"data: " + compact(chunk(text, finish)) + b"\n\n"

    return Stream(
        whole=compact(chunk("Hi", "STOP")),
        head=event(""),
        deltas=list(map(event, WORDS)),
        tail=event("", "STOP"),
    )


def ollama() -> Stream:
    """Lines, each with a blank one after it."""

    def line(text: str, **members: Any) -> bytes:
        message = {"role": "assistant", "content": text}
        made = {"model": "llama3.2", "created_at": "2026-01-01T00:00:00.123456Z"}
        return compact({**made, "message": message, "done": False, **members}) + b"\n\n"

    counts = {"total_duration": 5191566416, "prompt_eval_count": 12, "eval_count": 200}
    end = {"done": True, "done_reason": "stop", **counts}
    return Stream(
        whole=line("Hi", **end),
        head=b"\n\n",
        deltas=list(map(line, WORDS)),
        tail=line("", **end),
    )


def anthropic_stream(count: int) -> list[bytes]:
    """A whole stream of `count` deltas, event by event."""
    stream = anthropic()
    middle = [stream.deltas[at % len(stream.deltas)] for at in range(count)]
    return [*events(stream.head), *middle, *events(stream.tail)]


def events(data: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]


# Requests. The model selects the answer of the upstream, see upstream.c.


def body(model: str, *, stream: bool = False, usage: bool = False) -> bytes:
    members: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Say something about a fox and a dog, in a few words."},
        ],
        "max_tokens": 256,
        "temperature": 0.7,
    }
    if stream:
        members["stream"] = True
    if usage:
        members["stream_options"] = {"include_usage": True}
    return compact(members)


_HI = [{"role": "user", "content": "Say something about a fox and a dog, in a few words."}]
# Where each client API is asked for a stream, and the members of its requests but the model.
FACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": _HI, "stream": True}),
    "completions": ("/v1/completions", {"prompt": _HI[0]["content"], "stream": True}),
    "Responses": ("/v1/responses", {"input": _HI[0]["content"], "stream": True}),
    "Messages": (MESSAGES, {"messages": _HI, "max_tokens": 256, "stream": True}),
    "Gemini": (
        "/v1beta/models/{model}:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": _HI[0]["content"]}]}]},
    ),
}


def chat_request(face: str, model: str) -> tuple[str, bytes]:
    """The path and the body of a streamed request in a client API."""
    path, members = FACES[face]
    if "{model}" in path:
        return path.format(model=model), compact(members)
    return path, compact({"model": model, **members})


def request(path: str, body: bytes) -> bytes:
    """A whole HTTP request, as an SDK might send it."""
    return (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"accept: application/json\r\nuser-agent: OpenAI/Python 3.52.0\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
    ) % (path.encode(), TOKEN.encode(), len(body)) + body


def deltas_in(stream: bytes) -> int:
    """The number of text deltas in a stream of any client API."""
    found = 0
    for event in stream.split(b"\n\n"):
        _, _, data = event.rpartition(b"data: ")
        if not data.startswith(b"{"):
            continue
        event_data = json.loads(data)
        if event_data.get("error"):
            raise ValueError(f"the stream holds an error: {event_data}")
        delta = event_data.get("delta")
        if event_data.get("type") == "response.output_text.delta" or (
            isinstance(delta, dict) and delta.get("text")
        ):
            found += 1
        for choice in event_data.get("choices", ()):
            found += bool(choice.get("text") or choice.get("delta", {}).get("content"))
        for candidate in event_data.get("candidates", ()):
            parts = candidate.get("content", {}).get("parts", ())
            found += any(part.get("text") for part in parts)
    return found
