"""Providers without a network: scripted answers over `httpx.MockTransport`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from asgi_aiproxy.upstream import HttpxTransport

CHUNK = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-test"}


def chat_answer(text: str = "Hello", **more: Any) -> bytes:
    """A whole chat completion in OpenAI's format."""
    return json.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-test",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            **more,
        }
    ).encode()


def sse(*values: Any) -> list[bytes]:
    """One event per piece."""
    return [
        b"data: " + (v.encode() if isinstance(v, str) else json.dumps(v).encode()) + b"\n\n"
        for v in values
    ]


def chat_stream(*texts: str, usage: bool = True, done: bool = True) -> list[bytes]:
    """A streamed chat completion in OpenAI's format, one chunk per piece."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    chunks: list[Any] = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text}) for text in texts]
    chunks.append(chunk({}, "stop"))
    if usage:
        counts = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        chunks.append({**CHUNK, "choices": [], "usage": counts})
    return sse(*chunks, *(["[DONE]"] if done else []))


@dataclass
class Step:
    """One scripted response. `pieces` may contain bytes, seconds to wait, or an exception
    to raise.
    """

    pieces: list[Any] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    before: float = 0.0


def answers(body: bytes | None = None, **more: Any) -> Step:
    return Step([chat_answer() if body is None else body], headers=_type("json"), **more)


def streams(*pieces: Any, **more: Any) -> Step:
    return Step(list(pieces) or list(chat_stream("Hel", "lo")), headers=_type("sse"), **more)


def refuses(status: int, body: bytes | None = None, **headers: str) -> Step:
    error = json.dumps({"error": {"message": f"no: {status}", "type": "t", "code": None}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Step([error if body is None else body], status, {**_type("json"), **named})


def _type(kind: str) -> dict[str, str]:
    return {"content-type": "application/json" if kind == "json" else "text/event-stream"}


class Upstream:
    """A scripted provider: `steps` are used in order, the last one repeatedly."""

    def __init__(self, *steps: Step | Exception) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []
        self.bodies: list[Any] = []
        self.open = 0
        self.closed = asyncio.Event()
        self.requested = asyncio.Event()
        self.transport = HttpxTransport(httpx.MockTransport(self._handle))

    @property
    def keys(self) -> list[str | None]:
        """The bearer tokens that were sent."""
        return [r.headers.get("authorization", " ").partition(" ")[2] for r in self.requests]

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self.requests.append(request)
        try:
            self.bodies.append(json.loads(body))
        except ValueError:
            self.bodies.append(body)
        self.requested.set()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        if step.before:
            await asyncio.sleep(step.before)
        return httpx.Response(step.status, headers=step.headers, stream=_Body(self, step.pieces))


class _Body(httpx.AsyncByteStream):
    def __init__(self, upstream: Upstream, pieces: list[Any]) -> None:
        self._upstream = upstream
        self._pieces = pieces
        upstream.open += 1
        upstream.closed.clear()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, float | int):
                await asyncio.sleep(piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield piece

    async def aclose(self) -> None:
        self._upstream.open -= 1
        self._upstream.closed.set()
