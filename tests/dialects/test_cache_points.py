"""Cache points in a chat request are sent to Anthropic from any place, or reported."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.dialect_requests import HI, openai, written

MARK = {"type": "ephemeral", "ttl": "1h"}
MARKED: dict[str, Any] = {"cache_control": MARK}
URL = "https://a.example/a.png"
IMAGE = {"type": "image_url", "image_url": {"url": URL, "detail": "auto"}}
PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0xLjcK"}}
FILE = {"type": "file", "file": {"file_id": "file_1"}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USE = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def user(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts), **more}


def tool(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "a", "content": content, **more}


MESSAGES: list[tuple[list[dict[str, Any]], tuple[int, int]]] = [
    ([user(text("a", **MARKED), text("b"))], (0, 0)),
    ([user(IMAGE | MARKED, text("b"))], (0, 0)),
    ([user(text("a"), PDF | MARKED)], (0, 1)),
    ([user(text("a"), FILE | MARKED)], (0, 1)),
    ([{"role": "user", "content": "a", **MARKED}], (0, 0)),
    ([user(text("a"), IMAGE, **MARKED)], (0, 1)),
    ([*HI, {"role": "assistant", "content": "a", **MARKED}, *HI], (1, 0)),
    ([*HI, USE | MARKED, tool("x")], (1, 0)),
    ([*HI, USE | {"tool_calls": [CALL | MARKED]}, tool("x")], (1, 0)),
    ([*HI, USE, tool("x", **MARKED)], (2, 0)),
    ([*HI, USE, tool([text("x", **MARKED)])], (2, 0)),
    ([*HI, USE, tool([text("x"), IMAGE | MARKED])], (2, 0)),
]


@pytest.mark.parametrize(("messages", "at"), MESSAGES)
def test_a_cache_point_in_a_message_reaches_anthropic_at_its_block(
    messages: list[dict[str, Any]], at: tuple[int, int]
) -> None:
    draft = written("anthropic", openai(messages))
    found = [
        (turn, number, block["cache_control"])
        for turn, message in enumerate(draft.body["messages"])
        for number, block in enumerate(message["content"])
        if "cache_control" in block
    ]
    assert found == [(*at, MARK)]
    assert str(draft.body).count("cache_control") == 1
    assert draft.ignored == ()


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_marked_as_a_whole_end_in_a_cache_point(role: str) -> None:
    content = [text("A"), text("B")]
    draft = written("anthropic", openai([{"role": role, "content": content, **MARKED}, *HI]))
    assert draft.body["system"] == [text("A"), text("B", **MARKED)]


FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": FUNCTION, **MARKED},
        {"type": "function", "function": {**FUNCTION, **MARKED}},
    ],
)
def test_a_cache_point_at_a_tool_reaches_anthropic(tool: dict[str, Any]) -> None:
    draft = written("anthropic", openai(tools=[tool]))
    assert draft.body["tools"][0]["cache_control"] == MARK
    assert draft.ignored == ()


def test_a_cache_point_of_the_whole_request_reaches_anthropic() -> None:
    draft = written("anthropic", openai(cache_control=MARK))
    assert draft.body["cache_control"] == MARK
    assert draft.ignored == ()


def test_a_cache_point_without_content_is_reported() -> None:
    draft = written("anthropic", openai([user(text("a"), text(" ", **MARKED))]))
    assert draft.ignored == ("cache_control",)


@pytest.mark.parametrize("language", ["gemini", "openai_chat"])
@pytest.mark.parametrize(
    "request_",
    [
        *(openai(messages) for messages, _ in MESSAGES),
        openai(tools=[{"type": "function", "function": {**FUNCTION, **MARKED}}]),
        openai(cache_control=MARK),
    ],
)
def test_a_vendor_without_cache_points_has_them_reported(language: str, request_: Any) -> None:
    draft = written(language, request_)
    assert "cache_control" in draft.ignored
    assert "cache_control" not in str(draft.body)
