"""A request that is too large to translate is refused; a large one does not delay others."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import OpenAIShim, RequestLimits
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.request_limits import depth_of
from asgi_aiproxy.shim import AIShim
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

FEW = RequestLimits(messages=5, parts=8, tools=3, depth=12)
HI = {"role": "user", "content": "Hi"}
TEXT = {"type": "text", "text": "x"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"type": "object", "properties": {"x": value}}
    return value


LARGE = [
    ({"messages": [HI] * 6}, "messages"),
    ({"messages": [{"role": "user", "content": [TEXT] * 9}]}, "parts"),
    ({"messages": [{"role": "user", "content": [TEXT] * 5}] * 2}, "parts"),
    ({"messages": [HI], "tools": [TOOL] * 4}, "tools"),
    (
        {"messages": [HI], "tools": [{**TOOL, "function": {"name": "f", "parameters": nested(9)}}]},
        "depth",
    ),
]


@pytest.mark.parametrize("row", [ANTHROPIC, GEMINI], ids=["anthropic", "gemini"])
@pytest.mark.parametrize(("body", "limit"), LARGE)
async def test_a_request_too_large_to_translate_is_refused_with_the_name_of_the_limit(
    row: Any, body: dict[str, Any], limit: str
) -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(row.using("k"), transport=upstream.transport, limits=FEW)
    answer = await asgi.chat(app, **body)
    assert answer.status == 400, answer.body
    assert f"limit: {limit}" in answer.json["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("face", ["/v1/messages", "/v1beta/models/m:generateContent"])
async def test_all_client_apis_have_these_limits(face: str) -> None:
    app = AIShim(OPENAI.using("k"), transport=Upstream(answers()).transport, limits=FEW)
    contents = [{"role": "user", "parts": [{"text": "x"}]}]
    body = {"model": "m", "max_tokens": 9, "messages": [HI] * 9, "contents": contents * 9}
    answer = await asgi.request(app, "POST", face, body)
    assert (answer.status, "limit: messages" in answer.body.decode()) == (400, True)
    declared = [{"functionDeclarations": [{"name": "f"}] * 9}]
    if "models" in face:
        body = {"contents": contents, "tools": declared}
        answer = await asgi.request(app, "POST", face, body)
        assert (answer.status, "limit: tools" in answer.body.decode()) == (400, True)


async def test_requests_that_pass_through_may_have_any_size() -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(OPENAI.using("k"), transport=upstream.transport, limits=FEW)
    for body, _ in LARGE:
        assert (await asgi.chat(app, **body)).status == 200


def test_limits_are_integers_of_one_at_least() -> None:
    for name in ("messages", "parts", "tools", "depth"):
        for wrong in (0, -1, None, 1.5, True):
            with pytest.raises(ConfigurationError, match=name):
                RequestLimits(**{name: wrong})  # type: ignore[arg-type]


async def test_a_large_request_is_translated_without_delaying_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []
    language = type(ANTHROPIC.dialect)
    before = language.encode_request

    def encode_request(self: Any, request: Any) -> Any:
        threads.append(threading.current_thread())
        return before(self, request)

    monkeypatch.setattr(language, "encode_request", encode_request)
    upstream = Upstream(answers())
    app = OpenAIShim(ANTHROPIC.using("k"), transport=upstream.transport, attempts=1)
    await asgi.chat(app, messages=[HI])
    await asgi.chat(app, messages=[HI] * 5_000)
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_a_disconnect_during_a_long_translation_leaves_nothing_behind() -> None:
    app = OpenAIShim(ANTHROPIC.using("k"), transport=Upstream(answers()).transport)
    async with asgi.opened(app, "POST", "/v1/chat/completions") as exchange:
        exchange.send_body(json.dumps({"model": "m", "messages": [HI] * 9_000}).encode())
        await asyncio.sleep(0)
        exchange.disconnect()
        await exchange.ended()


VALUES = st.recursive(
    st.text(alphabet='x"\\[]{}', max_size=5) | st.none() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.sampled_from([None, 2]))
@settings(max_examples=300, deadline=None)
def test_depth_is_counted_outside_of_strings(value: Any, indent: int | None) -> None:
    assert depth_of(json.dumps(value, indent=indent).encode()) == depth(value)


@given(st.lists(st.one_of(st.just(HI), st.just({"content": [TEXT] * 3}), st.just("x")), max_size=8))
@settings(max_examples=200, deadline=None)
def test_requests_within_the_limits_are_never_refused(messages: list[Any]) -> None:
    body = json.dumps({"messages": messages}).encode()
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    lists = [m["content"] for m in messages if isinstance(m, dict) and m != HI]
    parts = sum(map(len, lists)) + messages.count("x")
    limits = RequestLimits(messages=4, parts=6, tools=1)
    refused = len(messages) > 4 or parts > 6
    try:
        limits.check(fields, body)
    except APIError:
        assert refused
    else:
        assert not refused or body.count(b"{") <= 1
