"""A stored response is read again as the events of its stream."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from asgi_aiproxy import MemoryStore
from asgi_aiproxy.responses_state.replay import stream_of
from asgi_aiproxy.testing import Answer
from tests.clients.conftest import MODELS
from tests.clients.test_openai_responses import TOOLS, WEATHER
from tests.clients.test_openai_stateful import create, place, stash
from tests.support.readers import READERS, sdk

pytestmark = pytest.mark.anyio


async def test_a_stored_response_is_streamed_again_from_any_event() -> None:
    memory = MemoryStore()
    async with place(memory, state=stash(memory)) as found, found.client() as client:
        found.mock.script(Answer("It rains.", tool_calls=(WEATHER,)))
        members: Any = {"model": MODELS["anthropic"], "tools": TOOLS, "input": "Weather?"}
        made = await create(client, **members, stream=True)
        stream: Any = await client.responses.retrieve(made.id, stream=True)
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.completed"
        assert events[-1].response == await client.responses.retrieve(made.id)
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(texts) == "It rains."
        again: Any = await client.responses.retrieve(made.id, stream=True, starting_after=3)
        rest = [event async for event in again]
        assert rest == events[4:]
        assert len(found.mock.requests) == 1


ITEMS: list[dict[str, Any]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "x",
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "No."},
        ],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    },
    {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "c2",
        "name": "g",
        "input": "x",
        "status": "completed",
    },
]


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_the_events_say_what_the_response_says(status: str) -> None:
    response: dict[str, Any] = {
        **dict.fromkeys(("instructions", "metadata", "temperature", "top_p")),
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": ITEMS,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 3,
        },
    }
    Response.model_validate(response)
    data = stream_of(response, -1)
    read = READERS["openai_responses"].stream(data)
    assert (read.text, read.thought, read.refusal) == ("Hi", "Hm.", "No.")
    assert [name for _, name, _ in read.calls] == ["f", "g"]
    sdk.stream("openai_responses", data)
