"""Each Claude model gets only what it supports, and the rest is reported."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy.dialects._claude import capabilities
from asgi_aiproxy.dialects._claude.capabilities import NEWEST, TABLE
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError
from tests.support.dialect_requests import HI, openai, written

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
NAMED = {"type": "function", "function": {"name": "f"}}

# As the vendor's client lists them, and as platforms spell them.
KNOWN = {
    "claude-fable-5-2": ("fable", (5, 1)),
    "claude-fable-5-1": ("fable", (5, 1)),
    "claude-fable-5": ("fable", (5, 0)),
    "claude-mythos-5-2": ("mythos", (5, 1)),
    "claude-mythos-5": ("mythos", (5, 0)),
    "claude-mythos-preview": ("mythos-preview", (0, 0)),
    "claude-opus-5-5": ("opus", (5, 5)),
    "claude-opus-5": ("opus", (5, 0)),
    "claude-opus-4-8": ("opus", (4, 8)),
    "claude-opus-4-7": ("opus", (4, 7)),
    "claude-opus-4-6": ("opus", (4, 6)),
    "claude-opus-4-5-20251101": ("opus", (4, 5)),
    "claude-opus-4-1-20250805": ("opus", (4, 1)),
    "claude-opus-4-20250514": ("opus", (4, 0)),
    "claude-opus-4@20250514": ("opus", (4, 0)),
    "claude-3-opus-20240229": ("opus", (3, 0)),
    "claude-sonnet-5-5": ("sonnet", (5, 5)),
    "claude-sonnet-5": ("sonnet", (5, 0)),
    "claude-sonnet-4-6": ("sonnet", (4, 6)),
    "anthropic.claude-sonnet-4-5-20250929-v1:0": ("sonnet", (4, 5)),
    "anthropic/claude-sonnet-4.5": ("sonnet", (4, 5)),
    "claude-sonnet-4-0": ("sonnet", (3, 7)),
    "claude-3-7-sonnet-latest": ("sonnet", (3, 7)),
    "claude-3-5-sonnet-20241022": ("sonnet", (3, 5)),
    "claude-haiku-5-5": ("haiku", (5, 5)),
    "us.anthropic.claude-haiku-4-5-20251001-v1:0": ("haiku", (4, 5)),
    "claude-3-5-haiku-latest": ("haiku", (3, 5)),
    "claude-2.1": ("", (0, 0)),
    "claude-instant-1.2": ("", (0, 0)),
    "Claude-Opus-4-8": ("opus", (4, 8)),
    "my-opus-4-6": ("opus", (4, 6)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_models_row_is_found_by_its_name(name: str) -> None:
    row = capabilities.of(name)
    assert (row.family, row.since) == KNOWN[name]


@pytest.mark.parametrize(
    "name", ["m", "", "my-deployment", "claude-latest", "claude-nova-7", "claude-6", "gpt-5"]
)
def test_a_name_without_a_version_counts_as_the_newest(name: str) -> None:
    assert capabilities.of(name) is NEWEST


@pytest.mark.parametrize("family", ["opus", "sonnet", "haiku", "fable", "mythos"])
def test_a_family_without_a_version_counts_as_its_newest(family: str) -> None:
    newest = capabilities.of(f"claude-{family}-latest")
    assert newest is capabilities.of(f"claude-{family}-99") is capabilities.of(f"my-{family}")
    assert newest.since == max(row.since for row in TABLE if row.family == family)


def test_every_row_is_in_order_and_says_where_it_is_from() -> None:
    for row in TABLE:
        assert row.source
        assert row.default_limit <= row.limit
        assert (row.thinking == "none") == (not row.efforts and row.thinking != "budget")
        own = [other.since for other in TABLE if other.family == row.family]
        assert own == sorted(own, reverse=True)


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-2.1", 4096),
        ("claude-3-opus-20240229", 4096),
        ("claude-3-5-sonnet-20241022", 8192),
        ("claude-sonnet-4-20250514", 32_000),
        ("claude-opus-5", 32_000),
        ("my-model", 32_000),
    ],
)
def test_a_request_without_a_limit_gets_one_that_the_model_accepts(model: str, limit: int) -> None:
    assert written("anthropic", openai(), model).body["max_tokens"] == limit


# ── how much to think ────────────────────────────────────────────────────────


def wished(model: str, **members: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """Return the thinking and effort that are sent, and what is reported."""
    draft = written("anthropic", openai(**members), model)
    effort = draft.body.get("output_config", {}).get("effort")
    thinking = draft.body.get("thinking")
    if isinstance(thinking, dict):
        thinking = thinking["type"]
    return thinking, effort, draft.ignored


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-3-5-sonnet-latest", (None, None, ())),
        ("claude-sonnet-4-5", (None, None, ())),
        ("claude-opus-4-6", (None, None, ())),
        ("claude-opus-4-8", (None, None, ())),
        ("claude-opus-5", ("disabled", None, ())),
        ("claude-sonnet-5", ("disabled", None, ())),
        ("claude-haiku-5-5", ("disabled", None, ())),
        ("claude-sonnet-5-5", ("between_tools", None, ())),
        ("claude-opus-5-5", (None, "low", ("reasoning_effort",))),
        ("claude-fable-5-2", (None, "low", ("reasoning_effort",))),
        ("claude-mythos-preview", (None, "low", ("reasoning_effort",))),
        ("unheard-of", (None, "low", ("reasoning_effort",))),
    ],
)
@pytest.mark.parametrize(
    "wish",
    [
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}},
        {"reasoning": {"enabled": False}},
    ],
)
def test_thinking_is_disabled_where_it_is_the_default_and_can_be(
    model: str, sent: Any, wish: dict[str, Any]
) -> None:
    assert wished(model, **wish) == sent


@pytest.mark.parametrize(
    ("model", "word", "sent"),
    [
        ("claude-3-5-sonnet-latest", "high", (None, None, ("reasoning_effort",))),
        ("claude-2.1", "low", (None, None, ("reasoning_effort",))),
        ("claude-sonnet-4-5", "high", ("enabled", None, ())),
        ("claude-opus-4-5", "high", ("enabled", None, ())),
        ("claude-opus-4-6", "minimal", ("adaptive", "low", ("reasoning_effort",))),
        ("claude-opus-4-6", "low", ("adaptive", "low", ())),
        ("claude-opus-4-6", "xhigh", ("adaptive", "high", ("reasoning_effort",))),
        ("claude-sonnet-4-6", "max", ("adaptive", "max", ())),
        ("claude-mythos-preview", "high", ("adaptive", "high", ())),
        ("claude-mythos-preview", "xhigh", ("adaptive", "high", ("reasoning_effort",))),
        ("claude-opus-4-7", "xhigh", ("adaptive", "xhigh", ())),
        ("claude-opus-5-5", "medium", ("adaptive", "medium", ())),
        ("claude-haiku-5-5", "max", ("adaptive", "max", ())),
        ("claude-opus-latest", "high", ("adaptive", "high", ())),
        ("unheard-of", "max", ("adaptive", "max", ())),
    ],
)
def test_an_effort_is_the_nearest_that_the_model_has(model: str, word: str, sent: Any) -> None:
    assert wished(model, reasoning_effort=word) == sent


def test_no_thinking_option_is_sent_if_none_is_requested() -> None:
    for row in TABLE:
        assert wished(f"claude-{row.family}-{row.since[0]}-{row.since[1]}") == (None, None, ())


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize(
    ("model", "sent"),
    [
        # thinking and forcing exclude each other: the effort holds without
        ("claude-sonnet-4-5", (None, None, ("reasoning_effort",))),
        ("claude-opus-4-5", (None, "low", ())),
        ("claude-opus-4-6", (None, "low", ())),
        ("claude-opus-4-8", (None, "low", ())),
        ("claude-sonnet-5", (None, "low", ())),
        ("claude-haiku-5-5", (None, "low", ())),
        # nothing is forced here
        ("claude-opus-5-5", ("adaptive", "low", ("tool_choice",))),
        ("claude-fable-5-1", ("adaptive", "low", ("tool_choice",))),
    ],
)
def test_an_effort_is_sent_also_if_a_tool_is_forced(choice: Any, model: str, sent: Any) -> None:
    assert wished(model, tools=TOOLS, tool_choice=choice, reasoning_effort="low") == sent


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOST = [
    *HI,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "x"},
]


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-sonnet-4-5", (None, None, ("reasoning_effort",))),
        ("claude-opus-4-5", (None, "low", ())),
        ("claude-opus-4-6", ("adaptive", "low", ())),
        ("claude-opus-5-5", ("adaptive", "low", ())),
    ],
)
def test_an_effort_is_sent_also_if_the_thinking_blocks_of_a_call_are_missing(
    model: str, sent: Any
) -> None:
    assert wished(model, messages=LOST, reasoning_effort="low") == sent


@pytest.mark.parametrize(
    ("members", "budget", "ignored"),
    [
        ({"max_tokens": 1364}, None, ("reasoning_effort",)),
        ({"max_tokens": 1365}, 1024, ()),
        ({"max_tokens": 20_000}, 15_904, ()),
        ({"max_tokens": 100_000}, 16_384, ()),
        ({"max_tokens": None}, 16_384, ()),
    ],
)
def test_a_share_of_the_tokens_is_reserved_for_the_answer(
    members: dict[str, Any], budget: int | None, ignored: Any
) -> None:
    draft = written("anthropic", openai(reasoning_effort="high", **members), "claude-sonnet-4-5")
    assert draft.body.get("thinking", {}).get("budget_tokens") == budget
    assert draft.ignored == ignored


@pytest.mark.parametrize(
    ("model", "members", "ignored"),
    [
        ("claude-sonnet-4-5", {}, ()),
        ("claude-sonnet-4-5", {"max_tokens": 2000}, ("thinking.budget_tokens",)),
        ("claude-opus-4-6", {}, ("thinking.budget_tokens",)),
        ("claude-fable-5", {}, ("thinking.budget_tokens",)),
    ],
)
def test_a_changed_thinking_budget_is_reported(model: str, members: Any, ignored: Any) -> None:
    for wish in (
        {"thinking": {"type": "enabled", "budget_tokens": 3000}},
        {"reasoning": {"max_tokens": 3000}},
    ):
        draft: ProviderRequest = written("anthropic", openai(**wish, **members), model)
        assert draft.ignored == ignored


# ── tools and answers in JSON ────────────────────────────────────────────────


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize(
    ("model", "forced"),
    [
        ("claude-sonnet-4-5", True),
        ("claude-opus-5", True),
        ("claude-haiku-5-5", True),
        ("claude-opus-5-5", False),
        ("claude-sonnet-5-5", False),
        ("claude-fable-5", False),
        ("claude-fable-5-2", False),
        ("unheard-of", False),
    ],
)
def test_a_tool_is_forced_only_if_the_model_supports_it(
    model: str, forced: bool, choice: Any
) -> None:
    request = openai(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    draft = written("anthropic", request, model)
    assert (draft.body["tool_choice"]["type"] in ("any", "tool")) is forced
    assert draft.body["tool_choice"]["disable_parallel_tool_use"] is True
    assert draft.ignored == (() if forced else ("tool_choice",))


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("model", "structured"),
    [
        ("claude-3-7-sonnet-latest", False),
        ("claude-sonnet-4-0", False),
        ("claude-opus-4-1", True),
        ("claude-haiku-4-5", True),
        ("claude-fable-5-2", True),
        ("unheard-of", True),
    ],
)
def test_a_schema_is_a_parameter_if_the_model_supports_it_else_an_instruction(
    model: str, structured: bool
) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    draft = written("anthropic", openai(response_format=wanted), model)
    assert ("output_config" in draft.body) is structured
    assert ('{"type":"object"' in draft.body.get("system", "")) is not structured
    assert draft.ignored == (() if structured else ("response_format",))


@pytest.mark.parametrize(
    ("model", "url", "taken"),
    [
        ("claude-2.1", "data:image/png;base64,iVBORw0KGgo=", False),
        ("claude-3-haiku-20240307", "data:image/png;base64,iVBORw0KGgo=", True),
        ("claude-3-haiku-20240307", "data:application/pdf;base64,JVBERi0xLjcK", False),
        ("claude-sonnet-4-5", "data:application/pdf;base64,JVBERi0xLjcK", True),
    ],
)
def test_images_and_documents_need_a_model_that_supports_them(
    model: str, url: str, taken: bool
) -> None:
    shown = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    if taken:
        assert written("anthropic", openai(shown), model).body["messages"][0]["content"]
        return
    with pytest.raises(APIError, match="This model does not accept") as caught:
        written("anthropic", openai(shown), model)
    assert caught.value.param == "messages[0].content[0]"
