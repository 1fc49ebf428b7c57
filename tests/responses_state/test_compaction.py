"""Compaction: over OpenAI, which has it, and over other vendors, whose models summarize."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from hypothesis import given, strategies as st
from openai.types.responses import CompactedResponse

from asgi_aiproxy import MemoryStore, ResponseState
from asgi_aiproxy.dialects.openai_responses.compaction_items import (
    compaction_item,
    text_of,
    with_messages,
)
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.shim import OpenAIShim
from asgi_aiproxy.testing import Answer
from tests.clients.conftest import MODELS, VENDORS
from tests.clients.test_openai_responses import TOOLS, WEATHER
from tests.clients.test_openai_stateful import place, stash
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio
OTHERS = pytest.mark.parametrize("vendor", ["anthropic", "gemini"])


@OTHERS
async def test_a_conversation_is_compacted_and_continued_at_any_vendor(vendor: str) -> None:
    store = MemoryStore()
    async with place(store, state=stash(store)) as found, found.client() as client:
        model = MODELS[vendor]
        found.mock.script(
            Answer(tool_calls=(WEATHER,)), Answer("a summary", usage=Usage(input=90, output=9))
        )
        first = await client.responses.create(model=model, input="Weather?", tools=TOOLS)
        call: Any = first.output[-1]
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        raw = await client.responses.with_raw_response.compact(
            model=model, input=[result], previous_response_id=first.id, instructions="Be kind."
        )
        compacted = CompactedResponse.model_validate_json(raw.content)  # strictly
        assert (compacted.usage.input_tokens, compacted.usage.output_tokens) == (90, 9)
        body = found.sent()
        order = ["Be kind.", "Weather?", "Paris", "rain", "Summarize this conversation"]
        positions = [body.index(text) for text in order]
        assert positions[1:] == sorted(positions[1:])
        record = found.records[-1]
        assert (record.operation, record.outcome) == ("responses.compact", "done")
        assert record.usage == Usage(input=90, output=9)
        items: Any = [item.to_dict() for item in compacted.output]
        for other in MODELS.values():
            more: Any = {"role": "user", "content": "And tomorrow?"}
            response = await client.responses.create(model=other, input=[*items, more])
            assert response.status == "completed"
            body = found.sent()
            assert "aiproxy.summary" not in body
            order = ["Weather?", "a summary", "And tomorrow?"]
            assert [body.index(t) for t in order] == sorted(body.index(t) for t in order)


@VENDORS
async def test_what_cannot_be_compacted_is_refused(vendor: str) -> None:
    async with place() as found, found.client() as client:
        wrong: list[tuple[type[openai.APIStatusError], dict[str, Any]]] = [
            (openai.NotFoundError, {"model": "no-such-model", "input": "Hi"}),
        ]
        if vendor != "openai":
            wrong += [
                (openai.BadRequestError, {"model": MODELS[vendor]}),
                (openai.BadRequestError, {"model": MODELS[vendor], "input": [1]}),
            ]
        for kind, members in wrong:
            with pytest.raises(kind):
                await client.responses.compact(**members)


async def test_openai_compacts_by_itself() -> None:
    compaction = {"id": "cmp_1", "type": "compaction", "encrypted_content": "gAAAA"}
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    body = {"id": "resp_1", "object": "response.compaction", "created_at": 1}
    answer = json.dumps({**body, "output": [compaction], "usage": usage}).encode()
    upstream = Upstream(answers(answer))
    app = OpenAIShim(OPENAI.using("sk-secret-1"), transport=upstream.transport)
    found = await asgi.request(
        app, "POST", "/v1/responses/compact", {"model": "m", "input": [compaction]}
    )
    assert (found.status, found.body) == (200, answer)
    assert upstream.requests[0].url.path == "/v1/responses/compact"
    assert upstream.bodies[0] == {"model": "m", "input": [compaction]}


async def test_a_path_of_compaction_takes_posts_only() -> None:
    app = OpenAIShim(OPENAI.using("sk-secret-1"), response_state=ResponseState())
    for path in ("compact", "input_tokens"):
        for method in ("PUT", "GET", "DELETE"):
            found = await asgi.request(app, method, f"/v1/responses/{path}")
            assert (found.status, found.header("allow")) == (405, "POST")


@given(st.text(), st.text(max_size=40))
def test_an_item_holds_any_text_and_other_items_stay_as_they_are(text: str, other: str) -> None:
    item = compaction_item("cmp_1", text)
    assert text_of(item["encrypted_content"]) == text.encode("utf-8", "replace").decode()
    (message,) = with_messages([item])
    assert message["content"][0]["text"] == text_of(item["encrypted_content"])
    odd: list[Any] = [{"type": "compaction", "encrypted_content": other}, other, None, {}]
    assert with_messages(odd) == odd or other.startswith("aiproxy.summary:")
    assert with_messages(other) == other
