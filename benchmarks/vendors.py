"""The vendors' APIs that are measured: what the mock sends, and the provider that calls it.

This table is the only place that lists them: the mock, the apps and the rows read it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple
from zlib import crc32

from benchmarks import wire
from benchmarks.wire import Stream, compact

SSE, BINARY = "text/event-stream; charset=utf-8", "application/vnd.amazon.eventstream"


class Vendor(NamedTuple):
    """An API of a vendor.

    `path` is a part of the path of its requests, by which the mock recognizes them; `provider`
    takes the URL of the mock; `native` is the client API (of `wire.FACES`) that passes through.
    """

    path: str
    stream: Stream
    provider: Callable[[str], Any]
    native: str = ""
    media_type: str = SSE


def _only(provider: Any, operation: str) -> Any:
    """The provider with one operation that passes through; the others are translated."""
    if operation not in provider.native_operations:
        raise ValueError(f"{provider.name} has no operation {operation!r}.")
    return replace(provider, native_operations=frozenset({operation}))


def _openai(url: str) -> Any:
    from asgi_aiproxy.providers import OPENAI

    return _only(OPENAI, "chat.completions").using(KEYS, base_url=f"{url}/v1")


def _openai_responses(url: str) -> Any:
    from asgi_aiproxy.providers import OPENAI_RESPONSES

    return _only(OPENAI_RESPONSES, "responses").using(KEYS, base_url=f"{url}/v1")


def _anthropic(url: str) -> Any:
    from asgi_aiproxy.providers import ANTHROPIC

    return ANTHROPIC.using(KEYS, base_url=url)


def _gemini(url: str) -> Any:
    from asgi_aiproxy.providers import GEMINI

    return GEMINI.using(KEYS, base_url=f"{url}/v1beta")


def _ollama(url: str) -> Any:
    from asgi_aiproxy.providers import OLLAMA

    return replace(OLLAMA, native_operations=frozenset()).using(KEYS, base_url=url)


def _cohere(url: str) -> Any:
    from asgi_aiproxy.providers import COHERE

    return COHERE.using(KEYS, base_url=url)


def _coze(url: str) -> Any:
    from asgi_aiproxy.providers import COZE

    return COZE.using(KEYS, base_url=url)


def _bedrock(url: str) -> Any:
    from asgi_aiproxy.providers import bedrock

    return bedrock("us-east-1", base_url=url).using(KEYS)


def _bedrock_anthropic(url: str) -> Any:
    from asgi_aiproxy.providers import bedrock_anthropic

    return bedrock_anthropic("us-east-1", base_url=url).using(KEYS)


def _vertex(url: str) -> Any:
    from asgi_aiproxy.providers import vertex

    return vertex("bench", base_url=url).using(KEYS)


def _vertex_anthropic(url: str) -> Any:
    from asgi_aiproxy.providers import vertex_anthropic

    return vertex_anthropic("bench", base_url=url).using(KEYS)


KEYS = ["sk-one", "sk-two"]


def cohere() -> Stream:
    """Cohere's chat, version 2."""

    def event(kind: str, **members: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), compact({"type": kind, **members}))

    def delta(kind: str, content: Any) -> bytes:
        return event(kind, index=0, delta={"message": {"content": content}})

    counts = {"input_tokens": 12, "output_tokens": 200}
    usage = {"billed_units": counts, "tokens": counts}
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    id = "29f14a5a-11de-4cae-9800-25e4747408ea"
    return Stream(
        whole=compact(
            {
                "id": id,
                "finish_reason": "COMPLETE",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
                "usage": usage,
            }
        ),
        head=event("message-start", id=id, delta={"message": message})
        + delta("content-start", {"type": "text", "text": ""}),
        deltas=[delta("content-delta", {"text": word}) for word in wire.WORDS],
        tail=event("content-end", index=0)
        + event("message-end", delta={"finish_reason": "COMPLETE", "usage": usage})
        + b"data: [DONE]\n\n",
    )


def coze() -> Stream:
    """Coze's chat, version 3."""
    ids = {"conversation_id": "7397787494399950867", "bot_id": "7397787494399951234"}

    def event(name: str, data: bytes) -> bytes:
        return b"event:%b\ndata:%b\n\n" % (name.encode(), data)

    def chat(status: str, **members: Any) -> bytes:
        error = {"code": 0, "msg": ""}
        made = {"id": "7397787494399954321", **ids, "last_error": error, "status": status}
        return event(f"conversation.chat.{status}", compact({**made, **members}))

    def message(state: str, text: str) -> bytes:
        made = {"id": "7397787494399959876", **ids, "role": "assistant", "type": "answer"}
        more = {"content": text, "content_type": "text", "chat_id": "7397787494399954321"}
        return event(f"conversation.message.{state}", compact({**made, **more}))

    usage = {"token_count": 212, "output_count": 200, "input_count": 12}
    return Stream(
        whole=compact({"code": 0, "msg": "", "data": {"status": "completed", "usage": usage}}),
        head=chat("created") + chat("in_progress"),
        deltas=[message("delta", word) for word in wire.WORDS],
        tail=message("completed", "The answer.")
        + chat("completed", usage=usage)
        + event("done", b'"[DONE]"'),
    )


def binary_event(name: str, payload: bytes) -> bytes:
    """A message of Amazon's binary event stream."""
    headers = {
        ":event-type": name,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    block = b"".join(
        pack("!B", len(key)) + key.encode() + pack("!BH", 7, len(value)) + value.encode()
        for key, value in headers.items()
    )
    prelude = pack("!II", 16 + len(block) + len(payload), len(block))
    body = prelude + pack("!I", crc32(prelude)) + block + payload
    return body + pack("!I", crc32(body))


def converse() -> Stream:
    """Bedrock's ConverseStream."""

    def event(name: str, **members: Any) -> bytes:
        return binary_event(name, compact({**members, "p": "abcdefghijklm"}))

    usage = {"inputTokens": 12, "outputTokens": 200, "totalTokens": 212}
    message = {"role": "assistant", "content": [{"text": "Hi"}]}
    return Stream(
        whole=compact({"output": {"message": message}, "stopReason": "end_turn", "usage": usage}),
        head=event("messageStart", role="assistant"),
        deltas=[
            event("contentBlockDelta", contentBlockIndex=0, delta={"text": word})
            for word in wire.WORDS
        ],
        tail=event("contentBlockStop", contentBlockIndex=0)
        + event("messageStop", stopReason="end_turn")
        + event("metadata", usage=usage, metrics={"latencyMs": 900}),
    )


def hosted_anthropic() -> Stream:
    """Anthropic's events in Bedrock's InvokeModelWithResponseStream."""
    events = wire.anthropic()

    def chunk(event: bytes) -> bytes:
        data = event.rpartition(b"data: ")[2].strip()
        return binary_event(
            "chunk", compact({"bytes": base64.b64encode(data).decode(), "p": "abcdefghijklm"})
        )

    return Stream(
        whole=events.whole,
        head=b"".join(map(chunk, wire.events(events.head))),
        deltas=list(map(chunk, events.deltas)),
        tail=b"".join(map(chunk, wire.events(events.tail))),
    )


def vendors() -> dict[str, Vendor]:
    """All of them, by the name in rows."""
    anthropic, gemini = wire.anthropic(), wire.gemini()
    return {
        "chat": Vendor("/chat/completions", wire.openai(usage=False), _openai, "chat"),
        "Responses": Vendor("/responses", wire.responses(), _openai_responses, "Responses"),
        "Messages": Vendor("/v1/messages", anthropic, _anthropic, "Messages"),
        "Gemini": Vendor("/v1beta/models/", gemini, _gemini, "Gemini"),
        "Ollama": Vendor("/api/chat", wire.ollama(), _ollama),
        "Cohere": Vendor("/v2/chat", cohere(), _cohere),
        "Coze": Vendor("/v3/chat", coze(), _coze),
        "Bedrock": Vendor("/converse-stream", converse(), _bedrock, media_type=BINARY),
        "Claude on Bedrock": Vendor(
            "/invoke-with-response-stream",
            hosted_anthropic(),
            _bedrock_anthropic,
            "Messages",
            BINARY,
        ),
        "Claude on Vertex": Vendor(":streamRawPredict", anthropic, _vertex_anthropic, "Messages"),
        "Gemini on Vertex": Vendor("/publishers/google/models/", gemini, _vertex, "Gemini"),
    }


def write(folder: Path) -> None:
    """Write the streams to files for the mock, and `formats`, the list of them.

    A line of that list is the name of the files, a part of the path, and the media type. The stream
    of OpenAI's chat exists twice, without and with usage; the mock knows which was requested.
    """
    found = list(vendors().values())
    with_usage = found[0]._replace(stream=wire.openai(usage=True))
    lines = []
    for number, vendor in enumerate([with_usage, *found]):
        lines.append(f"{number} {vendor.path} {vendor.media_type}\n")
        stream = vendor.stream
        parts = {
            "whole": stream.whole,
            "head": stream.head,
            "deltas": b"".join(stream.deltas),
            "sizes": b" ".join(b"%d" % len(delta) for delta in stream.deltas),
            "tail": stream.tail,
        }
        for part, data in parts.items():
            (folder / f"{number}.{part}").write_bytes(data)
    (folder / "formats").write_text("".join(lines))
