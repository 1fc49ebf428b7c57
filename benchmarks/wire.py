"""The bytes on the wire: responses of the mock providers and requests of the clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WHOLE_SIZE = 558
TOKEN = "bench-token"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"

_WORDS = [
    *("The", " quick", " brown", " fox", ",", " it", " is", " said", ":\n", " jumps", " over"),
    *(" the", ' "lazy"', " dog", ".", " Then", " it", " rests", " a", " while", ".\n\n"),
]


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# The formats of the upstream: OpenAI's, OpenAI's with usage, Anthropic's.


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


def openai(*, usage: bool) -> dict[str, bytes]:
    role: dict[str, str | None] = {"role": "assistant", "content": "", "refusal": None}
    last = {"prompt_tokens": 12, "completion_tokens": 200, "total_tokens": 212}
    counted = json.loads(openai_chunk({}, usage=usage)[6:]) | {"choices": [], "usage": last}
    tail = openai_chunk({}, "stop", usage=usage)
    if usage:
        tail += b"data: " + compact(counted) + b"\n\n"
    return {
        "whole": openai_whole(),
        "head": openai_chunk(role, usage=usage),
        "deltas": b"".join(openai_chunk({"content": word}, usage=usage) for word in _WORDS),
        "tail": tail + b"data: [DONE]\n\n",
    }


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


def anthropic() -> dict[str, bytes]:
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
    return {
        "whole": compact(whole),
        "head": anthropic_event({"type": "message_start", "message": message})
        + anthropic_event({"type": "content_block_start", "index": 0, "content_block": block})
        + anthropic_event({"type": "ping"}),
        "deltas": b"".join(map(anthropic_delta, _WORDS)),
        "tail": anthropic_event({"type": "content_block_stop", "index": 0})
        + anthropic_event({"type": "message_delta", "delta": end, "usage": {"output_tokens": 200}})
        + anthropic_event({"type": "message_stop"}),
    }


def anthropic_stream(count: int) -> list[bytes]:
    """A whole stream of `count` deltas, event by event."""
    parts = anthropic()
    deltas = events(parts["deltas"])
    middle = [deltas[at % len(deltas)] for at in range(count)]
    return [*events(parts["head"]), *middle, *events(parts["tail"])]


def events(data: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]


def write(folder: Path) -> None:
    """Write the formats to files for the upstream."""
    formats = {"openai": openai(usage=False), "usage": openai(usage=True), "anthropic": anthropic()}
    for name, parts in formats.items():
        for part, data in parts.items():
            (folder / f"{name}.{part}").write_bytes(data)


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


def request(path: str, body: bytes) -> bytes:
    """A whole HTTP request, as an SDK might send it."""
    return (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"accept: application/json\r\nuser-agent: OpenAI/Python 3.52.0\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
    ) % (path.encode(), TOKEN.encode(), len(body)) + body


def deltas_in(stream: bytes) -> int:
    """The number of text deltas in a stream of either vendor."""
    found = 0
    for event in stream.split(b"\n\n"):
        _, _, data = event.rpartition(b"data: ")
        if not data.startswith(b"{"):
            continue
        event_data = json.loads(data)
        if event_data.get("error"):
            raise ValueError(f"the stream holds an error: {event_data}")
        if event_data.get("delta", {}).get("text"):
            found += 1
        for choice in event_data.get("choices", ()):
            found += bool(choice["delta"].get("content"))
    return found
