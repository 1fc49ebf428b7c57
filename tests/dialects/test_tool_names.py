"""A tool may have any name that the client's API allows, whatever the vendor's API allows."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import AIShim
from asgi_aiproxy.dialects.base import OutboundDialect
from asgi_aiproxy.dialects.tool_names import OriginalNames, valid_names
from asgi_aiproxy.messages import Message, Request, Text, Tool, ToolCall, ToolChoice, ToolResult
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import CHUNK, Upstream, answers, chat_answer, sse, streams
from tests.support.stream_fixtures import languages

LIMITED = {name: dialect for name, dialect in languages().items() if dialect.tool_names is not None}
LONG = "mcp__the_server_of_a_large_company__search_all_documents_of_one_year"  # 68 characters
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


def request(*names: str) -> Request:
    calls = tuple(ToolCall(f"c{number}", name, "{}") for number, name in enumerate(names))
    results = tuple(ToolResult(call.id, (Text("r"),), call.name) for call in calls)
    return Request(
        model="m",
        messages=(
            Message("user", (Text("Hi"),)),
            Message("assistant", calls),
            Message("user", results),
        ),
        tools=tuple(Tool(name=name, schema={"type": "object"}) for name in names),
        tool_choice=ToolChoice("required", names[:1]),
    )


@pytest.mark.parametrize("dialect", LIMITED.values(), ids=LIMITED.keys())
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_every_name_that_is_sent_is_valid_and_the_client_gets_its_own_back(
    dialect: OutboundDialect, names: list[str]
) -> None:
    rule = dialect.tool_names
    assert rule is not None
    sent, originals = valid_names(request(*names), rule)
    valid = [tool.name for tool in sent.tools]
    assert len(set(valid)) == len(names)
    assert all(rule.pattern.fullmatch(name) for name in valid)
    assert [originals.get(name, name) for name in valid] == names
    assert sent.tool_choice == ToolChoice("required", (valid[0],))
    called, returned = sent.messages[1].parts, sent.messages[2].parts
    assert [part.name for part in (*called, *returned)] == valid * 2  # type: ignore[union-attr]
    assert valid_names(sent, rule) == (sent, {})
    body = json.dumps(dialect.encode_request(sent).body)
    assert all(json.dumps(name) in body for name in valid)


def test_valid_names_stay_as_they_are_and_a_name_is_changed_in_the_same_way_each_time() -> None:
    rule = LIMITED["openai_chat"].tool_names
    unchanged = request("look", "mcp__a-b__c")
    assert valid_names(unchanged, rule) == (unchanged, {})
    first, _ = valid_names(request("look", LONG), rule)
    later, _ = valid_names(request(LONG, "other", "a.b"), rule)
    assert first.tools[1].name == later.tools[0].name


def test_a_dialect_without_a_rule_gets_every_name() -> None:
    assert valid_names(request("a b"), None) == (request("a b"), {})


def test_names_of_earlier_calls_are_valid_after_their_tool_is_gone() -> None:
    gone = Request(model="m", messages=request("a.b").messages)
    sent, _ = valid_names(gone, LIMITED["anthropic"].tool_names)
    assert re.fullmatch("a_b_[0-9a-f]{8}", sent.messages[1].parts[0].name)  # type: ignore[union-attr]


def test_a_name_that_was_not_sent_is_passed_on() -> None:
    body = chat_answer(tool_calls=None)
    reader = OriginalNames(LIMITED["openai_chat"], {"short": LONG})
    assert reader.decode_response(body).blocks == (Text("Hello"),)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_messages_calls_a_tool_with_a_long_name_at_a_chat_vendor(
    stream: bool,
) -> None:
    rule = LIMITED["openai_chat"].tool_names
    sent_name = valid_names(request(LONG), rule)[0].tools[0].name
    call = {"id": "call_1", "type": "function", "function": {"name": sent_name, "arguments": "{}"}}
    chunk = {"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    whole = json.loads(chat_answer())
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = answers(json.dumps(whole).encode())
    if stream:
        answer = streams(
            *sse({**CHUNK, "choices": [chunk]}, {**CHUNK, "choices": [last]}, "[DONE]")
        )
    upstream = Upstream(answer)
    provider = OPENAI.using("k-1")
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": 50,
        "stream": stream,
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"name": LONG, "input_schema": {"type": "object"}}],
    }
    async with AIShim(provider, transport=upstream.transport) as app:
        answered = await asgi.request(app, "POST", "/v1/messages", body)
    assert upstream.bodies[0]["tools"][0]["function"]["name"] == sent_name
    assert answered.status == 200
    assert json.dumps(LONG).encode() in answered.body
    assert sent_name.encode() not in answered.body


@pytest.mark.anyio
async def test_tokens_are_counted_with_names_that_the_vendor_accepts() -> None:
    upstream = Upstream(answers(b'{"input_tokens": 7}'))
    body = {
        "generateContentRequest": {
            "contents": [{"role": "user", "parts": [{"text": "x"}]}],
            "tools": [{"functionDeclarations": [{"name": "server.tool"}]}],
        },
    }
    async with AIShim(ANTHROPIC.using("k-1"), transport=upstream.transport) as app:
        path = "/v1beta/models/claude:countTokens"
        answered = await asgi.request(app, "POST", path, body)
    assert answered.json == {"totalTokens": 7}
    assert re.fullmatch("server_tool_[0-9a-f]{8}", upstream.bodies[0]["tools"][0]["name"])
