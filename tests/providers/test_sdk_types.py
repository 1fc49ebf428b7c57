"""What vendors get of any request: members that their SDKs declare, and no others.

The vendors' checks are made from the types of their SDKs (`tests/support/sdk_types.py`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from asgi_aiproxy import AIShim
from asgi_aiproxy.providers import (
    ANTHROPIC,
    CEREBRAS,
    COHERE,
    COZE,
    GEMINI,
    GROQ,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENAI_RESPONSES,
    Provider,
    bedrock,
)
from asgi_aiproxy.upstream import HttpxTransport
from tests.support import asgi_client as asgi
from tests.support.rich_requests import FEATURES, body_of
from tests.support.vendor_types import CHECKS, refusal

pytestmark = pytest.mark.anyio

ROWS = [OPENAI, OPENAI_RESPONSES, ANTHROPIC, GEMINI, bedrock("us-east-1"), COHERE, MISTRAL, GROQ]
ROWS += [CEREBRAS, OLLAMA, COZE]
# The newest model, and one of an older generation.
MODELS = {
    "anthropic": ("claude-opus-latest", "claude-sonnet-4-0"),
    "gemini": ("gemini-flash-latest", "gemini-2.5-flash"),
    "bedrock": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-2-lite-v1:0"),
    "cohere": ("command-a-reasoning-08-2025", "command-a-03-2025"),
    "coze": ("7379462189365198898",),
}
TARGETS = [(row, model) for row in ROWS for model in MODELS.get(row.name, ("some-model",))]
COMBINATIONS, PARTS = 12, 6


class StrictChat:
    """A gateway before a vendor that refuses what its SDK does not declare."""

    def __init__(self, face: str, row: Provider, model: str) -> None:
        self._face, self._row, self._model = face, row, model
        secret = "AKIDEXAMPLE:secret" if row.name == "bedrock" else "sk-1"
        transport = HttpxTransport(httpx.MockTransport(self._handle))
        self._app = AIShim(row.using(secret), transport=transport, attempts=1)
        self._refusals: list[str] = []

    async def send(self, names: tuple[str, ...], *, stream: bool) -> str:
        """Why the vendor refuses a request of these parts; empty if it accepts it.

        A request that the gateway refuses must be one that names what cannot be sent.
        """
        self._refusals.clear()
        body = body_of(self._face, names)
        if self._face != "gemini":
            body |= {"model": self._model, "stream": stream}
        if not stream:
            body.pop("stream_options", None)
        answer = await asgi.request(self._app, "POST", self._path(stream), body)
        if self._refusals:
            return self._refusals[0]
        error = json.loads(answer.body)["error"]
        named = error.get("param") or error["message"].partition(":")[0]
        assert (answer.status, named.partition("[")[0]) in [(400, "messages"), (400, "tools")]
        return ""

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        body = json.loads(await request.aread())
        self._refusals.append(refusal(self._row.name, path, body))
        return httpx.Response(400, json={"message": "seen"})

    def _path(self, stream: bool) -> str:
        if self._face == "gemini":
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
            return f"/v1beta/models/{quote(self._model, safe='')}:{method}"
        paths = {"anthropic": "messages", "openai_responses": "responses"}
        return f"/v1/{paths.get(self._face, 'chat/completions')}"


def requests(face: str) -> Iterator[tuple[str, ...]]:
    """The parts of requests: each one alone, then some together."""
    yield from ((name,) for name in FEATURES[face])
    chosen = random.Random(face)  # the same ones in every run
    for _ in range(COMBINATIONS):
        yield tuple(chosen.sample(list(FEATURES[face]), PARTS))


def name_of(value: Provider | str) -> str:
    return value.name if isinstance(value, Provider) else value


@pytest.mark.parametrize(("row", "model"), TARGETS, ids=name_of)
@pytest.mark.parametrize("face", FEATURES)
async def test_vendors_get_only_what_their_sdk_declares(
    face: str, row: Provider, model: str
) -> None:
    chat = StrictChat(face, row, model)
    problems = {
        names: problem
        for number, names in enumerate(requests(face))
        if (problem := await chat.send(names, stream=number % 2 == 0))
    }
    assert problems == {}


HI = [{"role": "user", "content": "Hi"}]
COZE_HI = [{**HI[0], "content_type": "text"}]
GOOD: dict[str, Any] = {
    "openai": {"model": "m", "messages": HI},
    "openai-responses": {"input": HI},
    "anthropic": {"model": "m", "max_tokens": 9, "messages": HI},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "bedrock": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
    "cohere": {"model": "m", "messages": HI, "stream": True},
    "mistral": {"model": "m", "messages": HI},
    "groq": {"model": "m", "messages": HI},
    "cerebras": {"model": "m", "messages": HI},
    "ollama": {"model": "m", "messages": HI},
    "coze": {"bot_id": "1", "user_id": "u", "stream": True, "additional_messages": COZE_HI},
}
# Bedrock and the Responses API also accept requests that are stored under an id, Coze those of a
# conversation that it keeps.
OPTIONAL = {"stream", "input", "additional_messages"}


@pytest.mark.parametrize("vendor", CHECKS)
def test_the_checks_refuse_what_is_not_declared(vendor: str) -> None:
    path, good = "/model/m/converse", GOOD[vendor]
    turns = next(name for name, value in good.items() if isinstance(value, list))
    assert refusal(vendor, path, good) == ""
    assert "unknown member" in refusal(vendor, path, {**good, "x_unknown": 1})
    assert "is not" in refusal(vendor, path, {**good, turns: 7})
    assert refusal(vendor, path, {**good, turns: [{**HI[0], "x_unknown": 1}]})
    for name in good.keys() - (OPTIONAL | ({"messages"} if vendor == "bedrock" else set())):
        rest = {member: value for member, value in good.items() if member != name}
        assert "missing member" in refusal(vendor, path, rest)
