"""A conversation reaches Claude in its order, and earlier messages stay unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.dialect_requests import openai, written

OPUS = "claude-opus-4-8"  # takes system messages within the conversation
SONNET = "claude-sonnet-4-5"  # does not
FABLE = "claude-fable-5-2"  # whose thoughts are bound to all that came before
BINDING = {"prefix_mismatch_behavior": "drop_block"}
BETA = {"anthropic-beta": "thinking-binding-controls-2026-08-01"}


def says(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "content": words}


def calls(*ids: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    made = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": f"result {id}"}


def shape(messages: list[dict[str, Any]], model: str) -> tuple[Any, list[tuple[str, Any]], Any]:
    """Return the system prompt, role and texts of each turn, and what is reported."""
    draft = written("anthropic", openai(messages), model)
    turns = []
    for turn in draft.body["messages"]:
        words = [b.get("text", b.get("content", b.get("id"))) for b in turn["content"]]
        turns.append((turn["role"], " | ".join(words)))
    return draft.body.get("system"), turns, draft.ignored


S, U1, A1, U2 = (
    says("system", "S"),
    says("user", "u1"),
    says("assistant", "a1"),
    says("user", "u2"),
)
D = says("developer", "D")
E = says("system", "E")
MOVED = ("messages[].role",)
SAID = "<system>\nD\n</system>"


@pytest.mark.parametrize(
    ("messages", "turns", "ignored"),
    [
        # in place
        ([S, U1, D], [("user", "u1"), ("system", "D")], ()),
        (
            [S, U1, A1, U2, D],
            [("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("system", "D")],
            (),
        ),
        ([S, U1, D, E, A1], [("user", "u1"), ("system", "D | E"), ("assistant", "a1")], ()),
        (
            [S, U1, calls("a"), result("a"), D],
            [("user", "u1"), ("assistant", "a"), ("user", "result a"), ("system", "D")],
            (),
        ),
        # not before a user's turn, within it, or between a call and its result: behind it
        (
            [S, U1, A1, D, U2],
            [("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("system", "D")],
            MOVED,
        ),
        ([S, U1, D, U2], [("user", "u1 | u2"), ("system", "D")], MOVED),
        (
            [S, U1, calls("a", "b"), result("a"), D, result("b")],
            [
                ("user", "u1"),
                ("assistant", "a | b"),
                ("user", "result a | result b"),
                ("system", "D"),
            ],
            MOVED,
        ),
        # no turn of the user's follows
        ([S, U1, A1, D], [("user", "u1"), ("assistant", "a1"), ("user", SAID)], MOVED),
        (
            [S, U1, A1, D, A1],
            [("user", "u1"), ("assistant", "a1"), ("user", SAID), ("assistant", "a1")],
            MOVED,
        ),
    ],
)
def test_instructions_within_a_conversation_stay_in_place(
    messages: list[dict[str, Any]], turns: Any, ignored: Any
) -> None:
    assert shape(messages, OPUS) == ("S", turns, ignored)


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([S, U1, D], [("user", f"u1 | {SAID}")]),
        ([S, U1, A1, D, U2], [("user", "u1"), ("assistant", "a1"), ("user", f"{SAID} | u2")]),
        ([S, U1, A1, D], [("user", "u1"), ("assistant", "a1"), ("user", SAID)]),
        (
            [S, U1, calls("a"), D, result("a")],
            [("user", "u1"), ("assistant", "a"), ("user", f"result a | {SAID}")],
        ),
    ],
)
@pytest.mark.parametrize("model", [SONNET, "claude-sonnet-5", "claude-opus-4-7"])
def test_instructions_become_user_text_in_place_for_models_without_support(
    messages: list[dict[str, Any]], turns: Any, model: str
) -> None:
    assert shape(messages, model) == ("S", turns, MOVED)


@pytest.mark.parametrize(
    "model", [OPUS, "claude-opus-5", "claude-sonnet-5-5", "claude-haiku-5-5", FABLE, "unheard-of"]
)
def test_newer_models_get_instructions_in_place(model: str) -> None:
    assert shape([S, U1, D], model) == ("S", [("user", "u1"), ("system", "D")], ())


def test_instructions_keep_their_cache_point_in_place() -> None:
    mark = {"type": "ephemeral"}
    marked = {"role": "system", "content": [{"type": "text", "text": "D", "cache_control": mark}]}
    turns = written("anthropic", openai([U1, marked]), OPUS).body["messages"]
    content = [{"type": "text", "text": "D", "cache_control": mark}]
    assert turns[-1] == {"role": "system", "content": content}


ROLES = st.lists(st.sampled_from("sua"), max_size=9)


@pytest.mark.parametrize("model", [OPUS, SONNET])
@given(roles=ROLES)
@settings(max_examples=150, deadline=None)
def test_any_conversation_is_valid_for_anthropic_and_loses_nothing(model: str, roles: Any) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    messages = [says(names[role], f"w{at}.") for at, role in enumerate([*roles, "u"])]
    draft = written("anthropic", openai(messages), model)
    turns = [turn["role"] for turn in draft.body["messages"]]
    for before, turn, after in zip(["", *turns], turns, [*turns[1:], ""], strict=False):
        assert before != turn
        if turn == "system":
            assert model == OPUS
            assert (before, after) in {("user", "assistant"), ("user", "")}
    words = json.dumps(draft.body)
    assert all(words.count(message["content"]) == 1 for message in messages)
    order = [words.index(w["content"]) for w in messages if w["role"] != "system"]
    assert order == sorted(order)


@given(roles=ROLES, more=st.sampled_from(["u", "su", "us"]))
@settings(max_examples=200, deadline=None)
def test_messages_before_an_answer_are_sent_again_unchanged(roles: Any, more: str) -> None:
    """Otherwise thinking blocks that depend on them would be rejected."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    requested = [says(names[r], f"w{at}.") for at, r in enumerate([*roles, "u"])]
    first = written("anthropic", openai(requested), FABLE).body
    later = [says(names[r], f"later{at}.") for at, r in enumerate(more)]
    second = written("anthropic", openai([*requested, A1, *later]), FABLE).body
    assert second.get("system") == first.get("system")
    assert second["messages"][: len(first["messages"])] == first["messages"]


# ── reasoning that is bound to the messages before it ────────────────────────

SIGNED = {
    "role": "assistant",
    "content": "a1",
    "reasoning_details": [
        {"type": "reasoning.text", "text": "", "signature": "c2ln", "format": "anthropic-claude-v1"}
    ],
}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
}
ANSWERED = [S, U1, SIGNED, U2]


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_do_not_remove_tools_that_thinking_blocks_depend_on(mode: str) -> None:
    allowed = {**ALLOWED, "allowed_tools": {**ALLOWED["allowed_tools"], "mode": mode}}  # type: ignore[dict-item]
    plain = written("anthropic", openai(ANSWERED, tools=TOOLS), FABLE)
    draft = written("anthropic", openai(ANSWERED, tools=TOOLS, tool_choice=allowed), FABLE)
    assert draft.body["tools"] == plain.body["tools"]
    assert draft.body["tool_choice"] == {"type": "auto"}
    assert draft.ignored == ("tool_choice",)


def test_allowed_tools_are_the_only_tools_for_other_models() -> None:
    draft = written("anthropic", openai(ANSWERED, tools=TOOLS, tool_choice=ALLOWED), OPUS)
    assert [tool["name"] for tool in draft.body["tools"]] == ["g"]
    assert draft.ignored == ()


JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}


def test_added_instructions_do_not_cause_preserved_thinking_to_be_rejected() -> None:
    draft = written("anthropic", openai(ANSWERED, **JSON), FABLE)
    assert draft.body["thinking"] == {"type": "adaptive", "block_binding": BINDING}
    assert draft.headers == BETA
    effort = written("anthropic", openai(ANSWERED, **JSON, reasoning_effort="low"), FABLE)
    assert effort.body["thinking"]["block_binding"] == BINDING
    assert effort.body["thinking"]["display"] == "summarized"


@pytest.mark.parametrize(
    ("messages", "members", "model"),
    [
        (ANSWERED, {}, FABLE),  # nothing was added
        ([S, U1, A1, U2], JSON, FABLE),  # nothing is bound
        (ANSWERED, JSON, OPUS),  # not with this model
    ],
)
def test_block_binding_is_only_set_if_needed(
    messages: Any, members: dict[str, Any], model: str
) -> None:
    draft = written("anthropic", openai(messages, **members), model)
    assert "thinking" not in draft.body
    assert draft.headers == {}


def test_thinking_blocks_that_cannot_be_kept_are_dropped_and_reported() -> None:
    request = openai(ANSWERED, **JSON, reasoning_effort="none")
    draft = written("anthropic", request, "claude-sonnet-5-5")
    assert draft.body["thinking"] == {"type": "between_tools"}
    assert "c2ln" not in json.dumps(draft.body)
    assert draft.ignored == ("response_format", "messages[].reasoning_details")
