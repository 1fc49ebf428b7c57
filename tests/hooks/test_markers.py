"""Markers in prompts, and rules that rewrite responses: what callers and operators rely on."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import AIShim, Authenticate, ConfigurationError, Principal, ProviderRouter
from asgi_aiproxy.hooks import Hook, PromptMarkers, TextReplacements, TextRule
from asgi_aiproxy.hooks.bounded_regex import RegexBudget, RegexError, Replacement
from asgi_aiproxy.hooks.marker_parser import MARKERS, Marker, parse_markers
from asgi_aiproxy.hooks.replacements import ReplacementFilter
from asgi_aiproxy.messages import BlockDelta, Event, Response, Text, check, fold, unfold
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import GROQ
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, chat_answer, chat_stream, streams

pytestmark = pytest.mark.anyio

KNOWN = MARKERS | {"@"}


async def ask(
    *messages: tuple[str, Any], hook: Hook | None = None, reply: str = "Hello", **body: Any
) -> tuple[asgi.Answer, Any]:
    """The answer, and the body that the provider was sent (None if none was)."""
    stream = body.get("stream", False)
    upstream = Upstream(
        streams(*chat_stream(*reply)) if stream else answers(chat_answer(reply)),
    )
    hook = PromptMarkers() if hook is None else hook
    sent = [{"role": role, "content": content} for role, content in messages]
    router = ProviderRouter({"m": GROQ.using("sk-1")})
    async with AIShim(router, transport=upstream.transport, hooks=[hook]) as shim:
        answer = await asgi.request(
            shim, "POST", "/v1/chat/completions", {"model": "m", "messages": sent, **body}
        )
    return answer, upstream.bodies[0] if upstream.bodies else None


def turns(body: Any) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in body["messages"]]


async def test_an_expression_rewrites_earlier_messages_and_is_removed() -> None:
    _, sent = await ask(
        ("system", "cats <regex>cats:dogs</regex>"), ("user", "cats"), ("assistant", "cats"),
        ("user", "cats?"),
    )  # fmt: skip
    assert turns(sent) == [
        ("system", "cats "), ("user", "dogs"), ("assistant", "dogs"), ("user", "dogs?")
    ]  # fmt: skip


async def test_miss_protects_the_newest_messages_and_order_decides() -> None:
    _, sent = await ask(
        ("user", "a<regex order=1>b:c</regex><regex order=2>a:b</regex>"), ("assistant", "a"),
        ("user", "a"),
    )  # fmt: skip
    assert turns(sent) == [("user", "c"), ("assistant", "c"), ("user", "c")]
    _, sent = await ask(
        ("user", "a<regex miss=1>a:b</regex>"), ("assistant", "a"), ("user", "a"),
    )  # fmt: skip
    assert turns(sent) == [("user", "b"), ("assistant", "a"), ("user", "a")]


async def test_groups_and_look_around_and_escaped_colons() -> None:
    _, sent = await ask(
        ("user", r"Ann 7<regex>(?<who>\w+) (?=\d)(\d):$2\: ${who}, $9</regex>"),
    )
    assert turns(sent) == [("user", "7: Ann, $9")]


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ('<@0 role="system">X</@0>', ["a", "X", "b", "c"]),
        ("<@1>X</@1>", ["a", "b", "X", "c"]),
        ("<@-1>X</@-1>", ["a", "b", "c", "X"]),
        ("<@-3>X</@-3>", ["a", "b", "c"]),
        ("<@-3 miss=false>X</@-3>", ["a", "X", "b", "c"]),
        ("<@9>X</@9>", ["a", "b", "c"]),
        ("<@9 miss=false>X</@9>", ["a", "b", "c", "X"]),
        ('<@1 role="tool">X</@1>', ["a", "b", "c"]),
    ],
)
async def test_messages_are_inserted_at_a_depth(marker: str, expected: list[str]) -> None:
    _, sent = await ask(("user", "a" + marker), ("assistant", "b"), ("user", "c"))
    assert [content for _, content in turns(sent)] == expected


async def test_histories_come_before_the_first_message_of_the_conversation() -> None:
    rows = json.dumps([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
    _, sent = await ask(("system", f"s<histories>{rows}</histories>"), ("user", "a"))
    assert turns(sent) == [("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "a")]
    for bad in ("[", '{"a": 1}', '[{"role": "tool", "content": "x"}]', json.dumps([1])):
        _, sent = await ask(("user", f"a<histories>{bad}</histories>"), ("assistant", "b"))
        assert turns(sent) == [("user", "a"), ("assistant", "b")]


async def test_echo_answers_with_the_prompt_and_calls_no_provider() -> None:
    answer, sent = await ask(("user", "cat <echo /><regex>cat:dog</regex>"))
    assert sent is None
    content = answer.json["choices"][0]["message"]["content"]
    assert json.loads(content) == [{"role": "user", "content": "dog "}]


async def test_comments_and_retired_markers_are_removed_and_unknown_tags_stay() -> None:
    _, sent = await ask(("user", "a<!-- no --><notebook /><pad/> <b>b</b> <tools /> 1 < 2 <x"))
    assert turns(sent) == [("user", "a <b>b</b> <tools /> 1 < 2 <x")]


async def test_protected_text_is_not_parsed() -> None:
    _, sent = await ask(("user", "<![CDATA[<echo />]]> <regex>a:<![CDATA[</regex>]]></regex>a"))
    assert turns(sent) == [("user", "<echo /> </regex>")]


async def test_a_message_of_markers_only_is_left_out() -> None:
    _, sent = await ask(("system", "<regex>a:b</regex>"), ("user", "a"))
    assert turns(sent) == [("user", "b")]


async def test_stop_sequences_of_role_markers() -> None:
    _, sent = await ask(("user", 'a<char_sequences user="U:" assistant="A:" />'), stop=["x"])
    assert sent["stop"] == ["x", "U:", "A:"]


async def test_what_the_model_and_tools_wrote_holds_no_markers() -> None:
    text = "<echo /><regex>a:b</regex> a"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer, sent = await ask(("user", "a"), ("assistant", text), reply="<echo /> <pad/>")
    assert turns(sent) == [("user", "a"), ("assistant", text)]
    assert answer.json["choices"][0]["message"]["content"] == "<echo /> <pad/>"
    upstream = Upstream(answers())
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": text},
    ]
    async with AIShim(GROQ, transport=upstream.transport, hooks=[PromptMarkers()]) as shim:
        await asgi.request(
            shim, "POST", "/v1/chat/completions", {"model": "m", "messages": messages}
        )
    assert upstream.bodies[0]["messages"][2]["content"] == text


async def test_callers_without_permission_cannot_use_markers() -> None:
    upstream = Upstream(answers())
    hook = PromptMarkers(allow=lambda principal: "markers" in principal.scopes)
    tokens = {
        "t-1": Principal(id="ann", scopes=frozenset({"markers"})),
        "t-2": Principal(id="bob"),
    }
    shim = AIShim(GROQ.using("k"), transport=upstream.transport, hooks=[hook])
    async with shim:
        app = Authenticate(shim, verify=static_tokens(tokens))
        for token in tokens:
            await asgi.request(
                app,
                "POST",
                "/v1/chat/completions",
                {"model": "m", "messages": [{"role": "user", "content": "a<pad/>"}]},
                headers={"authorization": f"Bearer {token}"},
            )
    assert [turns(body) for body in upstream.bodies] == [[("user", "a")], [("user", "a<pad/>")]]


async def test_only_the_chosen_markers_are_obeyed() -> None:
    _, sent = await ask(("user", "a<echo /><pad />"), hook=PromptMarkers(["pad"]))
    assert turns(sent) == [("user", "a<echo />")]
    with pytest.raises(ConfigurationError, match="There is no marker 'pads'"):
        PromptMarkers(["pads"])


async def test_a_marker_switches_the_emulation_of_tools_on() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    reply = '1: {"toolId": "f", "arguments": {}}'
    answer, sent = await ask(("user", "Go<tool enabled />"), reply=reply, tools=tools)
    assert answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f"
    assert "tools" not in sent
    answer, sent = await ask(("user", "Go<tool enabled=false />"), reply=reply, tools=tools)
    assert answer.json["choices"][0]["message"]["content"] == reply
    answer, _ = await ask(("user", 'Go<tool id="f" />'), reply="0:", tools=tools)
    assert answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_matcher_rewrites_the_response_of_its_own_request_only(stream: bool) -> None:
    marker = '<matcher find="<think>" end="</think>">(?s).+:[thought]</matcher>'
    reply = "Hi <think>secret</think> there <thi"
    answer, _ = await ask(("user", "a" + marker), reply=reply, stream=stream)
    text = (
        "".join(
            choice["delta"].get("content") or ""
            for event in answer.events
            if event != "[DONE]"
            for choice in event["choices"]
        )
        if stream
        else answer.json["choices"][0]["message"]["content"]
    )
    assert text == "Hi [thought] there <thi"
    answer, _ = await ask(("user", "a"), reply=reply)
    assert answer.json["choices"][0]["message"]["content"] == reply


@pytest.mark.parametrize("stream", [False, True])
async def test_rules_of_the_operator_rewrite_every_response(stream: bool) -> None:
    hook = TextReplacements(
        TextRule(find="<think>", end="</think>", replace="(?s).+:", description="(thinking) "),
        TextRule(find="colour", length=1, replace="colour:color"),
    )
    answer, _ = await ask(
        ("user", "a"), hook=hook, reply="<think>x</think>A colours <think>y</think>B", stream=stream
    )
    body = answer.body.decode()
    if not stream:
        content = answer.json["choices"][0]["message"]["content"]
        assert content == "(thinking) A colors B"
    assert "think>" not in body


@pytest.mark.parametrize(
    "rule",
    [
        {"find": "", "replace": "a:b"},
        {"find": "x", "replace": "no colon"},
        {"find": "x", "replace": "(:b"},
        {"find": "x", "replace": "a:b", "length": -1},
    ],
)
def test_an_invalid_rule_is_refused_when_it_is_made(rule: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="TextRule"):
        TextRule(**rule)


def collect(text: str, size: int, rules: list[TextRule]) -> str:
    """What a filter makes of a text that arrives in pieces of `size` characters."""
    import asyncio

    async def run() -> str:
        each = ReplacementFilter([(rule, Replacement(rule.replace)) for rule in rules])
        start, opened, *_, closed, end = unfold(Response(id="r", model="m", blocks=(Text("x"),)))
        pieces = [BlockDelta(0, text[i : i + size]) for i in range(0, len(text), size)]
        out: list[Event] = []
        for event in (start, opened, *pieces, closed, end):
            out += await each.feed(event)
        blocks = fold(check(out)).blocks
        return "".join(block.text for block in blocks if isinstance(block, Text))

    return asyncio.run(run())


@settings(max_examples=200, deadline=None)
@given(st.text("ab<>/x", max_size=60), st.integers(1, 7))
def test_rules_find_the_same_however_a_response_is_cut(text: str, size: int) -> None:
    rules = [
        TextRule(find="<a", end="/>", replace="(?s).*:#"),
        TextRule(find="bb", length=2, replace="b:_"),
    ]
    assert collect(text, size, rules) == collect(text, 1000, rules)


@settings(max_examples=200, deadline=None)
@given(st.text("ab<>/x", max_size=60), st.integers(1, 7))
def test_rules_that_change_nothing_lose_nothing(text: str, size: int) -> None:
    rules = [TextRule(find="<a", end="/>", replace="z:z"), TextRule(find="b", replace="z:z")]
    assert collect(text, size, rules) == text


CATASTROPHIC = [r"(a+)+$", r"(a|a)*$", r"(a|aa)+$", r"(.*a){20}$", r"(?=(a+)+$)b", r"(\w+\s?)*$"]


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_an_expression_that_takes_too_long_is_given_up(pattern: str) -> None:
    budget = RegexBudget(0.02)
    started = time.thread_time()
    for _ in range(50):
        try:
            budget.run(Replacement(f"{pattern}:x"), "a" * 5000 + "!")
        except RegexError:
            break
    # (Its own time, not that of a busy machine; without the limit it never ends.)
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("pattern", CATASTROPHIC)
async def test_a_request_with_such_an_expression_goes_on_without_it(pattern: str) -> None:
    text = "a" * 5000 + "!"
    _, sent = await ask(("user", f"{text}<regex>{pattern}:x</regex>"), ("assistant", text))
    assert sent is not None


def test_replacements_cannot_grow_without_bound() -> None:
    with pytest.raises(RegexError, match="too long"):
        RegexBudget(5).run(Replacement("a:" + "$0" * 900), "a" * 10_000)


@settings(max_examples=300, deadline=None)
@given(st.text("<>/!-[]CDAT@1 regxtool='\"=\n", max_size=80))
def test_any_text_is_parsed_and_what_is_no_marker_stays(text: str) -> None:
    out, markers = parse_markers(text, KNOWN)
    if not markers and "<!" not in text:
        assert out == text


@pytest.mark.parametrize(
    "text",
    [
        "<tool a='" * 20_000,
        "<regex>" * 20_000,
        "<!--" * 20_000,
        "<![CDATA[" * 20_000,
        "<@1 " * 9000,
    ],
)
def test_hostile_prompts_are_parsed_in_bounded_time(text: str) -> None:
    started = time.thread_time()
    parse_markers(text, KNOWN)
    assert time.thread_time() - started < 5  # quadratic time would be minutes


def test_attributes_have_types() -> None:
    text = """<matcher find="a b" len=5 x=true y=1.5 z w='"'>p</matcher>"""
    assert parse_markers(text, KNOWN) == (
        "",
        [
            Marker(
                "matcher", {"find": "a b", "len": 5, "x": True, "y": 1.5, "z": True, "w": '"'}, "p"
            )
        ],
    )
