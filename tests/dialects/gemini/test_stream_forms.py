"""A stream of Google's API is an event stream with `alt=sse`, and a JSON array without."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import AIShim, GeminiShim
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, refuses, streams

pytestmark = pytest.mark.anyio

REQUESTED = {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}


def path(version: str, query: str = "") -> str:
    return f"/{version}/models/m:streamGenerateContent{query}"


@pytest.mark.parametrize("shim", [AIShim, GeminiShim])
@pytest.mark.parametrize("version", ["v1", "v1beta"])
@pytest.mark.parametrize("query", ["", "?alt=json", "?alt=sse"])
async def test_a_stream_has_the_requested_form(shim: Any, version: str, query: str) -> None:
    upstream = Upstream(streams())
    app = shim(OPENAI.using("sk-1"), transport=upstream.transport)
    answer = await asgi.request(app, "POST", path(version, query), REQUESTED)
    assert answer.status == 200
    if query == "?alt=sse":
        assert (answer.header("content-type") or "").startswith("text/event-stream")
        assert answer.body.startswith(b"data: {")
        return
    assert (answer.header("content-type") or "").startswith("application/json")
    chunks = json.loads(answer.body)
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert len(chunks) > 1


async def test_an_error_before_the_stream_has_googles_format() -> None:
    upstream = Upstream(refuses(400))
    app = GeminiShim(OPENAI.using("sk-1"), transport=upstream.transport)
    answer = await asgi.request(app, "POST", path("v1beta"), REQUESTED)
    assert answer.status == 400
    assert answer.json["error"]["code"] == 400
