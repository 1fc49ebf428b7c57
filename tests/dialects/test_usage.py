"""Token counts are read wherever vendors put them, in the same way by shims and the proxy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import OpenAIShim, PassthroughProxy
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers import ANTHROPIC, OPENAI, Provider, openai_compatible
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import CHUNK, Upstream, answers, chat_answer, sse, streams

pytestmark = pytest.mark.anyio

COUNTS = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
PLACES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("openai", {"prompt_tokens_details": {"cached_tokens": 80}}, {"cache_read": 80}),
    ("kimi", {"cached_tokens": 80}, {"cache_read": 80}),
    ("deepseek", {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
     {"cache_read": 80}),
    ("fireworks", {"num_cached_tokens": 80}, {"cache_read": 80}),
    ("relay of anthropic", {"cache_read_input_tokens": 70, "cache_creation_input_tokens": 10},
     {"cache_read": 70, "cache_write": 10}),
    ("openrouter", {"prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 5}},
     {"cache_read": 7, "cache_write": 5}),
    ("several", {"prompt_tokens_details": {"cached_tokens": 80}, "cached_tokens": 80},
     {"cache_read": 80}),
    ("zero first", {"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 80},
     {"cache_read": 80}),
    ("nothing", {"prompt_tokens_details": None, "cached_tokens": None}, {}),
    ("pictures", {"prompt_tokens_details": {"image_tokens": 30, "text_tokens": 70}},
     {"image_input": 30}),
]  # fmt: skip


async def booked(
    row: Provider, upstream: Upstream, *, proxy: bool, path: str, **body: Any
) -> UsageRecord:
    records: list[UsageRecord] = []
    target = row.using("k-12345678")
    app: Any = (PassthroughProxy if proxy else OpenAIShim)(
        target, transport=upstream.transport, record=records.append
    )
    requested = {
        "model": "m",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "x"}],
        **body,
    }
    headers = {"content-type": "application/json"}
    async with app:
        assert (await asgi.request(app, "POST", path, requested, headers=headers)).status == 200
    (record,) = records
    return record


@pytest.mark.parametrize("proxy", [False, True], ids=["shim", "proxy"])
@pytest.mark.parametrize("where", ["whole", "stream", "choice", "groq"])
@pytest.mark.parametrize("row", [OPENAI, openai_compatible("http://any.test/v1")], ids=str)
@pytest.mark.parametrize(("more", "parts"), [place[1:] for place in PLACES],
                         ids=[place[0] for place in PLACES])  # fmt: skip
async def test_token_counts_are_read_wherever_vendors_put_them(
    more: dict[str, Any], parts: dict[str, int], row: Provider, where: str, proxy: bool
) -> None:
    usage = {**COUNTS, **more}
    choice: dict[str, Any] = {"index": 0, "delta": {"content": "ok"}, "finish_reason": None}
    last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop"}
    end: dict[str, Any] = {**CHUNK, "choices": [], "usage": usage}
    if where == "choice":
        last, end = {**last, "usage": usage}, {}
    elif where == "groq":
        end = {**CHUNK, "choices": [], "x_groq": {"id": "r", "usage": usage}}
    pieces = [{**CHUNK, "choices": [each]} for each in (choice, last)] + [
        each for each in (end,) if each
    ]
    step = streams(*sse(*pieces, "[DONE]"))
    if where == "whole":
        step = answers(chat_answer(usage=usage))
    stream = {"stream": True, "stream_options": {"include_usage": True}} if where != "whole" else {}
    path = "/v1/chat/completions"
    record = await booked(row, Upstream(step), proxy=proxy, path=path, **stream)
    assert record.usage == Usage(input=100, output=20, **parts)


@pytest.mark.parametrize("proxy", [False, True], ids=["shim", "proxy"])
@pytest.mark.parametrize("whole", [True, False])
async def test_tokens_written_to_anthropics_caches_are_counted_by_cache_age(
    proxy: bool, whole: bool
) -> None:
    split = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 40}
    reported = {"input_tokens": 5, "cache_creation_input_tokens": 70, "cache_read_input_tokens": 25}
    if not whole:
        del reported["cache_creation_input_tokens"]  # then the split alone says it
    answer = {"id": "m", "type": "message", "role": "assistant", "model": "m"}
    answer |= {"content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"}
    answer |= {"usage": {**reported, "output_tokens": 20, "cache_creation": split}}
    upstream = Upstream(answers(json.dumps(answer).encode()))
    path = "/v1/messages" if proxy else "/v1/chat/completions"
    record = await booked(ANTHROPIC, upstream, proxy=proxy, path=path)
    parts = {"cache_read": 25, "cache_write": 70, "cache_write_1h": 40}
    assert record.usage == Usage(input=100, output=20, **parts)
