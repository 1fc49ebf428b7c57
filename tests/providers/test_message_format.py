"""Chat requests for vendors that refuse members of OpenAI's format which they do not have."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import AnthropicShim, OpenAIShim
from asgi_aiproxy.providers import CEREBRAS, DEEPSEEK, GROQ, MISTRAL, MOONSHOT, OPENAI, Provider
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Hi"}]
STRICT = [MISTRAL, GROQ, CEREBRAS]
WEATHER = {"type": "function", "function": {"name": "weather"}}
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}


async def sent(provider: Provider, **members: Any) -> tuple[dict[str, Any], asgi.Answer]:
    upstream = Upstream(answers())
    app = OpenAIShim(provider.using("k"), transport=upstream.transport)
    answer = await asgi.chat(app, **members)
    return (upstream.bodies or [{}])[0], answer


async def turn(provider: Provider, **message: Any) -> dict[str, Any]:
    messages = [*HI, {"role": "assistant", **message}, *HI]
    body, _ = await sent(provider, messages=messages)
    found: dict[str, Any] = body["messages"][1]
    return found


async def test_reasoning_of_an_earlier_answer_is_written_as_the_vendor_has_it() -> None:
    chunk = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    said = {"role": "assistant", "content": "So."}
    given = {"content": "So.", "reasoning_content": "Hm."}
    assert await turn(OPENAI, **given) == said
    assert await turn(GROQ, **given) == said
    assert await turn(CEREBRAS, **given) == {**said, "reasoning": "Hm."}
    content = [chunk, {"type": "text", "text": "So."}]
    assert await turn(MISTRAL, **given) == {**said, "content": content}
    parts = [{"type": "text", "text": "So."}]
    assert await turn(MISTRAL, content=parts, reasoning="Hm.") == {**said, "content": content}


@pytest.mark.parametrize("provider", [DEEPSEEK, MOONSHOT], ids=lambda provider: provider.name)
async def test_answers_without_reasoning_get_an_empty_one_where_the_vendor_requires_it(
    provider: Provider,
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c", "content": "12:00"}
    given = {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}
    other = {"role": "assistant", "content": None, "tool_calls": [call]}  # of another vendor
    body, _ = await sent(provider, messages=[*HI, given, *HI, other, result], tools=[NOW])
    assert body["messages"] == [*HI, given, *HI, {**other, "reasoning_content": ""}, result]
    own = [*HI, given, *HI, {**other, "reasoning_content": "I call."}, result]
    body, _ = await sent(provider, messages=own, tools=[NOW])
    assert body["messages"] == own


async def test_reasoning_of_a_translated_conversation_goes_back_to_its_vendor() -> None:
    upstream = Upstream(answers())
    app = AnthropicShim(DEEPSEEK.using("k"), transport=upstream.transport)
    use = {"type": "tool_use", "id": "c", "name": "now", "input": {}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "12:00"}
    messages = [
        *HI,
        {"role": "assistant", "content": [thought, use]},
        {"role": "user", "content": [result]},
    ]
    tool = {"name": "now", "input_schema": {"type": "object"}}
    body = {"model": "m", "max_tokens": 9, "messages": messages, "tools": [tool]}
    await asgi.request(app, "POST", "/v1/messages", body)
    assert upstream.bodies[0]["messages"][1]["reasoning_content"] == "Hm."


async def test_answers_of_openai_go_back_to_openai_as_they_were() -> None:
    answer = {"content": None, "audio": {"id": "audio_1"}, "annotations": [], "refusal": None}
    assert await turn(OPENAI, **answer) == {"role": "assistant", **answer}
    assert "audio" not in await turn(GROQ, **answer)


@pytest.mark.parametrize("provider", STRICT, ids=lambda provider: provider.name)
async def test_a_refusal_of_an_earlier_answer_is_its_text(provider: Provider) -> None:
    said = {"role": "assistant", "content": "No."}
    assert await turn(provider, content=None, refusal="No.") == said
    assert await turn(provider, content="No.", refusal=None) == said
    parts = [{"type": "refusal", "refusal": "No."}]
    text = [{"type": "text", "text": "No."}]
    assert await turn(provider, content=parts) == {**said, "content": text}
    assert await turn(OPENAI, content=None, refusal="No.") == {
        "role": "assistant",
        "content": None,
        "refusal": "No.",
    }


async def test_files_and_sound_are_written_in_mistrals_words() -> None:
    url = "data:application/pdf;base64,JVBERi0="
    parts = [
        {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "f1"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    body, _ = await sent(MISTRAL, messages=[{"role": "user", "content": parts}])
    assert body["messages"][0]["content"] == [
        {"type": "document_url", "document_url": url, "document_name": "a.pdf"},
        {"type": "file", "file_id": "f1"},
        {"type": "input_audio", "input_audio": "AAAA"},
    ]


@pytest.mark.parametrize("provider", [GROQ, CEREBRAS], ids=lambda provider: provider.name)
async def test_content_that_a_vendor_does_not_accept_is_refused_by_name(provider: Provider) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    body, answer = await sent(provider, messages=[{"role": "user", "content": [sound]}])
    assert (body, answer.status) == ({}, 400)
    assert answer.json["error"]["param"] == "messages[0].content[0]"


@pytest.mark.parametrize("provider", STRICT, ids=lambda provider: provider.name)
async def test_a_choice_among_tools_is_a_list_of_these_tools(provider: Provider) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body, answer = await sent(provider, messages=HI, tools=[WEATHER, NOW], tool_choice=choice)
    assert (body["tools"], body["tool_choice"]) == ([NOW], "required")
    assert answer.header("aiproxy-ignored") is None


async def test_mistral_gets_the_parameters_that_it_requires_of_every_function() -> None:
    body, _ = await sent(MISTRAL, messages=HI, tools=[WEATHER, NOW])
    bare = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    assert body["tools"] == [{"type": "function", "function": bare}, NOW]


@pytest.mark.parametrize("provider", STRICT, ids=lambda provider: provider.name)
async def test_what_only_openai_has_is_reported_or_refused(provider: Provider) -> None:
    body, answer = await sent(provider, messages=HI, verbosity="low", modalities=["text"])
    assert body.keys() == {"model", "messages"}
    assert answer.header("aiproxy-ignored") == "verbosity"
    for members, param in [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "sh"}}]}, "tools[0].type"),
    ]:
        _, answer = await sent(provider, messages=HI, **members)
        assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize("provider", [GROQ, CEREBRAS], ids=lambda provider: provider.name)
@pytest.mark.parametrize(
    ("effort", "expected", "ignored"),
    [
        ("low", "low", None),
        ("minimal", "low", "reasoning_effort"),
        ("max", "high", None),
        ("new", "new", None),
    ],
)
async def test_an_effort_that_a_vendor_lacks_is_the_nearest_one(
    provider: Provider, effort: str, expected: str, ignored: str | None
) -> None:
    body, answer = await sent(provider, messages=HI, reasoning_effort=effort)
    assert body["reasoning_effort"] == expected
    assert answer.header("aiproxy-ignored") == ignored


@pytest.mark.parametrize("provider", STRICT, ids=lambda provider: provider.name)
@pytest.mark.parametrize(
    "odd",
    [
        {"messages": ["reasoning_content"]},
        {"messages": [{"role": "assistant", "content": 7, "reasoning_content": "Hm."}]},
        {"messages": [{"role": "user", "content": [{"type": ["refusal"]}, 7]}]},
        {"messages": HI, "tools": 7, "tool_choice": {"type": "allowed_tools"}},
        {"messages": HI, "tools": [7, {"function": "custom"}]},
        {"messages": HI, "tools": [], "tool_choice": {"allowed_tools": {"tools": [7]}}},
        {"messages": HI, "modalities": "audio", "reasoning_effort": ["low"]},
    ],
)
async def test_members_of_another_shape_are_left_to_the_vendor(
    provider: Provider, odd: dict[str, Any]
) -> None:
    body, answer = await sent(provider, **odd)
    assert (answer.status, body["model"]) == (200, "m")
