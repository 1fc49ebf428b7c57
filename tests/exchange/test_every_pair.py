"""Every client API in front of every vendor's API, through the whole gateway.

The vendors' answers are some of `tests/dialects/unusual`; the gateway's are read by strict readers,
and with the types and the stream accumulators of the vendors' SDKs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from asgi_aiproxy import AIShim, UsageRecord
from asgi_aiproxy.providers import (
    ANTHROPIC,
    COHERE,
    COZE,
    GEMINI,
    OLLAMA,
    OPENAI,
    OPENAI_RESPONSES,
    bedrock,
)
from asgi_aiproxy.providers.base import Provider
from tests.dialects.unusual import CASES, Case
from tests.dialects.unusual.meaning import check, knows
from tests.support.asgi_client import Answer, request
from tests.support.readers import READERS, sdk
from tests.support.scripted_upstream import Step, Upstream

pytestmark = pytest.mark.anyio


def only(provider: Provider, *operations: str) -> Provider:
    """A provider of which just one API is used, though it may have others."""
    return replace(provider, native_operations=frozenset(operations))


PROVIDERS: dict[str, Provider] = {
    "openai_chat": only(OPENAI, "chat"),
    "openai_responses": only(OPENAI_RESPONSES, "responses"),
    "anthropic": only(ANTHROPIC, "messages"),
    "gemini": only(GEMINI, "generateContent"),
    "ollama": only(OLLAMA),
    "cohere": only(COHERE),
    "bedrock": bedrock("us-east-1"),
    "coze": only(COZE),
}
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {}}
FACES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_chat": (
        "/v1/chat/completions",
        {
            "messages": HI,
            "stream_options": {"include_usage": True},
            "tools": [
                {"type": "function", "function": {"name": name, "parameters": SCHEMA}}
                for name in "fg"
            ],
        },
    ),
    "openai_completions": (
        "/v1/completions",
        {"prompt": "Hi", "stream_options": {"include_usage": True}},
    ),
    "openai_responses": (
        "/v1/responses",
        {
            "input": "Hi",
            "tools": [{"type": "function", "name": n, "parameters": SCHEMA} for n in "fg"],
        },
    ),
    "anthropic": (
        "/v1/messages",
        {
            "max_tokens": 100,
            "messages": HI,
            "tools": [{"name": name, "input_schema": SCHEMA} for name in "fg"],
        },
    ),
    "gemini": (
        "/v1beta/models/m",
        {
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "tools": [{"functionDeclarations": [{"name": name} for name in "fg"]}],
        },
    ),
}
# Texts, calls (parallel, with and without arguments), reasoning, refusals, limits, errors, usage.
SCENARIOS = re.compile(
    r"(whole-)?(plain|calls?|calls-interleaved|call-(empty|without|arguments).*|thinking|thought"
    r"|reasoning.*|refusal.*|max-tokens|length|incomplete-length|error-.*|failed-.*|cut-off|usage-.*"
    r"|grounding|annotations|citations|image)"
)
CHOSEN = [case for case in CASES if SCENARIOS.fullmatch(case.name)]
# Coze is always requested as a stream, also for clients that do not stream.
CHOSEN += [
    replace(case, name=f"whole-{case.name}", stream=False)
    for case in CHOSEN
    if case.dialect == "coze"
]


@dataclass
class Answered:
    """What a client got, and what was recorded of it."""

    answer: Answer
    records: list[UsageRecord]


async def ask(face: str, dialect: str, step: Step, *, stream: bool) -> Answered:
    """One request through a gateway in front of a vendor that answers with `step`."""
    upstream = Upstream(step)
    records: list[UsageRecord] = []
    router = PROVIDERS[dialect].using("sk-secret")
    app = AIShim(router, transport=upstream.transport, record=records.append, attempts=1)
    path, body = FACES[face]
    if face == "gemini":
        path += ":streamGenerateContent?alt=sse" if stream else ":generateContent"
    else:
        body = {**body, "model": "m", "stream": stream}
    if not stream:
        body = {name: value for name, value in body.items() if name != "stream_options"}
    async with app:
        answer = await request(app, "POST", path, body)
    return Answered(answer, records)


@pytest.mark.parametrize("case", CHOSEN, ids=str)
async def test_an_answer_means_what_the_vendor_said(case: Case) -> None:
    for face in FACES:
        if case.dialect != face or case.native:  # else this server only seems to speak that API
            await check_answer(case, face)


async def check_answer(case: Case, face: str) -> None:
    step = Step([case.data], headers={"content-type": case.media_type})
    requested = await ask(face, case.dialect, step, stream=case.stream)
    answer = requested.answer
    (record,) = requested.records
    if answer.status != 200:
        assert case.error is not None
        found = READERS[face].whole(answer.body)
        assert found.error is not None
        assert case.message in found.error["message"]
        assert record.outcome in ("failed", "refused")
        return
    assert case.stream or case.error is None
    if case.error is not None:
        assert record.outcome in ("cut", "failed")
    elif case.usage is not None:
        assert record.usage is not None
        assert (record.usage.input, record.usage.output) == case.usage[:2]
    if relayed(case, face):  # unchanged: its form is the vendor's
        return
    read = READERS[face].stream if case.stream else READERS[face].whole
    found = read(answer.body)
    if face == "gemini" and not case.stream and case.usage is None:
        found.usage = None  # whole answers of that API always have counts
    check(case, face, found)
    if knows(case, face):
        (sdk.stream if case.stream else sdk.whole)(face, answer.body)


def relayed(case: Case, face: str) -> bool:
    """Whether the vendor speaks the client's API."""
    return face == case.dialect


OPENAI_ERROR = '{"error":{"message":"%s","type":"%s","param":null,"code":null}}'
ERRORS: dict[str, str] = {
    "openai_chat": OPENAI_ERROR,
    "openai_responses": OPENAI_ERROR,
    "anthropic": '{"type":"error","error":{"message":"%s","type":"%s"}}',
    "gemini": '{"error":{"message":"%s","status":"%s","code":400}}',
    "ollama": '{"error":"%s","type":"%s"}',
    "cohere": '{"id":"c0","message":"%s","error_type":"%s"}',
    "bedrock": '{"message":"%s","type":"%s"}',
    "coze": '{"code":720702001,"msg":"%s","detail":{"logid":"%s"}}',
}
# What vendors answer: the status, their word for it, and what a client may get.
STATUSES = {
    400: ("invalid_request_error", {400}),
    401: ("authentication_error", range(500, 600)),  # the gateway's key, not the client's
    404: ("not_found_error", {404}),
    413: ("request_too_large", {413}),
    429: ("rate_limit_error", {429}),
    500: ("api_error", range(500, 600)),
    503: ("overloaded_error", range(500, 600)),
    529: ("overloaded_error", range(500, 600)),
}


@pytest.mark.parametrize("dialect", PROVIDERS)
@pytest.mark.parametrize("face", FACES)
async def test_a_refused_request_is_an_error_of_the_clients_api(face: str, dialect: str) -> None:
    for status in STATUSES:
        for stream in (False, True):
            await check_refusal(face, dialect, status, stream=stream)


async def check_refusal(face: str, dialect: str, status: int, *, stream: bool) -> None:
    word, allowed = STATUSES[status]
    body = (ERRORS[dialect] % ("It cannot be done.", word)).encode()
    headers = {"content-type": "application/json", "retry-after": "7"}
    requested = await ask(face, dialect, Step([body], status, headers), stream=stream)
    answer = requested.answer
    assert answer.status in allowed
    assert answer.header("content-type") == "application/json"
    error = json.loads(answer.body)["error"]
    if face != dialect:
        assert READERS[face].whole(answer.body).error == error
    if status != 401:
        assert "It cannot be done." in error["message"]
    if status == 429:
        assert answer.header("retry-after") is not None
    (record,) = requested.records
    assert record.outcome in ("failed", "refused")
    assert b"sk-secret" not in answer.body


@pytest.mark.parametrize("dialect", PROVIDERS)
@pytest.mark.parametrize("face", FACES)
async def test_a_page_of_a_proxy_is_an_error_of_the_clients_api(face: str, dialect: str) -> None:
    page = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
    for status in (200, 502):
        step = Step([page], status, {"content-type": "text/html"})
        requested = await ask(face, dialect, step, stream=False)
        assert requested.answer.status == 502
        found = READERS[face].whole(requested.answer.body).error
        assert found is not None
        assert "Bad Gateway" in found["message"]
        assert "<" not in found["message"]
