"""The vendors behind compat apps: scripted answers of each API, chosen by the path."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.support.scripted_upstream import Step, Upstream, answers, chat_stream, streams


def named_events(*events: tuple[str, Any]) -> list[bytes]:
    return [f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events]


def anthropic_stream(*texts: str) -> Step:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    message |= {"model": "claude-x", "stop_reason": None, "stop_sequence": None}
    message["usage"] = {"input_tokens": 3, "output_tokens": 1}
    block = {"type": "text", "text": ""}
    deltas = [
        ("content_block_delta", {"type": "content_block_delta", "index": 0,
                                 "delta": {"type": "text_delta", "text": text}})
        for text in texts
    ]  # fmt: skip
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return streams(
        *named_events(
            ("message_start", {"type": "message_start", "message": message}),
            ("content_block_start", start),
            *deltas,
            ("content_block_stop", {"type": "content_block_stop", "index": 0}),
            ("message_delta", {"type": "message_delta", "delta": end,
                               "usage": {"output_tokens": 2}}),
            ("message_stop", {"type": "message_stop"}),
        )
    )  # fmt: skip


def gemini_stream(*texts: str) -> Step:
    chunks = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]}
        for text in texts
    ]
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    last = {"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}, "index": 0,
                            "finishReason": "STOP"}], "usageMetadata": usage}  # fmt: skip
    return streams(*(b"data: " + json.dumps(c).encode() + b"\n\n" for c in [*chunks, last]))


def coze_stream(*texts: str) -> Step:
    chat = {"id": "72", "conversation_id": "71", "bot_id": "b1", "status": "completed"}
    usage = {"token_count": 9, "output_count": 4, "input_count": 5}
    message = {"id": "m1", "conversation_id": "71", "chat_id": "72", "role": "assistant"}
    message |= {"type": "answer", "content_type": "text"}
    return streams(
        *named_events(
            ("conversation.chat.created", {**chat, "status": "created"}),
            *(("conversation.message.delta", {**message, "content": text}) for text in texts),
            ("conversation.message.completed", {**message, "content": "".join(texts)}),
            ("conversation.chat.completed", {**chat, "usage": usage}),
            ("done", "[DONE]"),
        )
    )


_OTHER = {
    "completions": b'{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":'
    b'[{"index":0,"text":"Hello","finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens"'
    b':3,"completion_tokens":2,"total_tokens":5}}',
    "embeddings": b'{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding'
    b'":[0.5]}],"usage":{"prompt_tokens":3,"total_tokens":3}}',
    "moderations": b'{"id":"modr-1","model":"m","results":[{"flagged":false,"categories":{},'
    b'"category_scores":{}}]}',
    "images/generations": b'{"created":1,"data":[{"url":"https://pictures.example/1.png"}]}',
}


class Vendors(Upstream):
    """All vendors at once: each request is answered by the API that its path belongs to."""

    def __init__(self, *special: Step) -> None:
        super().__init__(answers())
        self.special = list(special)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        streamed = b'"stream":true' in body.replace(b" ", b"")
        path = request.url.path
        if self.special:
            step = self.special.pop(0)
        elif path.endswith("/v1/messages"):
            step = anthropic_stream("Hel", "lo")
        elif ":streamGenerateContent" in path:
            step = gemini_stream("Hel", "lo")
        elif path == "/v3/chat":
            step = coze_stream("Hel", "lo")
        elif path.endswith("/chat/completions"):
            step = streams(*chat_stream("Hel", "lo")) if streamed else answers()
        else:
            step = answers(_OTHER.get(path.rpartition("/v1/")[2], b'{"ok": true}'))
        self.steps = [step]
        return await super()._handle(request)

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]

    @property
    def body(self) -> Any:
        return self.bodies[-1]
