"""Conversations of many turns through a shim: Claude gets its own answers back unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.providers import ANTHROPIC
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream

pytestmark = pytest.mark.anyio

FABLE = "claude-fable-5-2"
SAID = Path(__file__).parents[1] / "streams" / "anthropic" / "interleaved-thinking.sse"
# The blocks of that stream.
CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Two cities to ask for.", "signature": "c2lnLTE="},
    {"type": "text", "text": "First Rome."},
    {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {"city": "Rome"}},
    {"type": "thinking", "thinking": "Now Oslo.", "signature": "c2lnLTI="},
    {"type": "text", "text": "Then Oslo: "},
    {"type": "text", "text": "é🚀"},
    {"type": "tool_use", "id": "toolu_b", "name": "weather", "input": {"city": "Oslo"}},
]
WEATHER = {"type": "function", "function": {"name": "weather"}}
REQUESTED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Rome and Oslo?"},
]
RESULTS = [
    {"role": "tool", "tool_call_id": "toolu_a", "content": "sunny"},
    {"role": "tool", "tool_call_id": "toolu_b", "content": "snow"},
]


def claude(how: str) -> Step:
    if how == "streamed":
        return Step([SAID.read_bytes()], headers={"content-type": "text/event-stream"})
    answer = {"id": "msg_1", "type": "message", "role": "assistant", "model": FABLE}
    body = {**answer, "content": CONTENT, "stop_reason": "tool_use", "usage": {}}
    return Step([json.dumps(body).encode()], headers={"content-type": "application/json"})


def shim(how: str, **options: Any) -> tuple[OpenAIShim, Upstream]:
    upstream = Upstream(claude(how))
    provider = ANTHROPIC.using("sk-ant-test")
    return OpenAIShim(provider, transport=upstream.transport, **options), upstream


async def requested(app: OpenAIShim, how: str, messages: Any, **more: Any) -> dict[str, Any]:
    """One turn; returns the message as OpenAI's own client keeps it."""
    stream = how == "streamed"
    body = {"model": FABLE, "tools": [WEATHER], "stream": stream, **more}
    answer = await asgi.chat(app, messages=messages, **body)
    assert answer.status == 200, answer.body
    if stream:
        state = ChatCompletionStreamState()
        for chunk in answer.events[:-1]:
            state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        kept = state.get_final_completion().choices[0].message
    else:
        kept = ChatCompletion.model_validate(answer.json).choices[0].message
    dumped: dict[str, Any] = json.loads(kept.model_dump_json(exclude_none=True))
    return dumped


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_each_request_begins_like_the_previous_one_and_contains_claudes_own_blocks(
    how: str,
) -> None:
    app, upstream = shim(how, strict=True)
    messages: list[dict[str, Any]] = list(REQUESTED)
    for turn in range(3):
        messages.append(await requested(app, how, messages))
        messages += RESULTS
        if turn == 1:  # from here on
            messages.append({"role": "developer", "content": "Answer in French."})
    await requested(app, how, messages)
    first, *later = upstream.bodies
    sent = first["messages"]
    for body in later:
        assert (body["system"], body["tools"]) == (first["system"], first["tools"])
        assert body["messages"][: len(sent)] == sent
        assert body["messages"][len(sent)] == {"role": "assistant", "content": CONTENT}
        sent = body["messages"]
    system = [turn for turn in sent if turn["role"] == "system"]
    french = {"type": "text", "text": "Answer in French."}
    assert system == [{"role": "system", "content": [french]}]


async def test_json_output_is_requested_without_rejected_thinking_blocks() -> None:
    app, upstream = shim("whole")
    messages = [*REQUESTED, await requested(app, "whole", REQUESTED), *RESULTS]
    await requested(app, "whole", messages, response_format={"type": "json_object"})
    thinking = upstream.bodies[1]["thinking"]
    assert thinking["block_binding"] == {"prefix_mismatch_behavior": "drop_block"}
    betas = upstream.requests[1].headers["anthropic-beta"]
    assert betas == "thinking-binding-controls-2026-08-01"
    assert "anthropic-beta" not in upstream.requests[0].headers
