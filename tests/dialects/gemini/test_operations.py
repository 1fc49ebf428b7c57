"""Google's dialect: paths, routing, lists of models, requests that pass through."""

from __future__ import annotations

import json

import msgspec
import pytest

from asgi_aiproxy.dialects import GEMINI_CONTENT, Operation
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import JSONArrayFramer, SSEFramer
from tests.dialects.gemini.samples import (
    PATH,
)


@pytest.mark.parametrize(
    ("method", "path", "model", "stream"),
    [
        ("POST", PATH, "gemini-2.5-flash", False),
        ("POST", "/v1beta/models/g:streamGenerateContent", "g", True),
        ("POST", "/v1/models/g:generateContent", "g", False),
        ("POST", "/v1beta2/models/g:generateContent", "g", False),
        ("POST", "/v1alpha/models/g:generateContent", "g", False),
        ("POST", "/v1beta/models/openai%2Fgpt%3A4:generateContent", "openai/gpt:4", False),
        ("POST", "/v1beta/models/anthropic/claude:generateContent", "anthropic/claude", False),
        ("GET", PATH, None, None),
        ("POST", "/v1beta/models/g:embedContent", "g", None),
        ("POST", "/v1beta/models/g:countTokens", "g", None),
        ("POST", "/v1beta/models/g:predict", None, None),
        ("POST", "/v1beta/models/g", None, None),
        ("POST", "/v1beta/models/:generateContent", None, None),
        ("POST", "/v1beta/models/g:generateContent/", None, None),
    ],
)
def test_paths_select_operations(
    method: str, path: str, model: str | None, stream: bool | None
) -> None:
    found = GEMINI_CONTENT.match(method, path)
    assert (found and found.model) == model
    assert (found and found.stream) == stream


def operation(path: str) -> Operation:
    found = GEMINI_CONTENT.match("POST", path)
    assert found is not None
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_routing_reads_the_path_and_passes_the_body(stream: bool) -> None:
    method = "streamGenerateContent" if stream else "generateContent"
    wanted = operation(f"/v1beta/models/g:{method}")
    body = {"contents": [{"parts": [{"text": "Hi"}]}], "unknown": {"a_b": 1}}
    head = GEMINI_CONTENT.summarize(wanted, json.dumps(body).encode())
    assert (head.model, head.stream, head.usage_wanted) == ("g", stream, True)
    draft = GEMINI_CONTENT.native_request(wanted, "tuned/other", head.fields, stream=stream)
    assert draft.path == f"/v1beta/models/tuned%2Fother:{method}"
    assert draft.query == ("alt=sse" if stream else "")
    assert json.loads(msgspec.json.encode(draft.body)) == body


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "could not be read as JSON"),
        (b"[]", None, "must be a JSON object"),
        (b'{"contents":"\xff"}', None, "not valid UTF-8"),
        (b"{}", "contents", "Missing required parameter"),
    ],
)
def test_a_body_that_cannot_be_routed_is_refused_with_the_name_of_the_member(
    body: bytes, param: str | None, message: str
) -> None:
    with pytest.raises(APIError, match=message) as caught:
        GEMINI_CONTENT.summarize(operation(PATH), body)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)


def test_models_are_listed() -> None:
    draft = GEMINI_CONTENT.models_request()
    assert (draft.path, draft.query) == ("/v1beta/models", "pageSize=1000")
    listed = b'{"models":[{"name":"models/a"},{"name":"b"}]}'
    assert GEMINI_CONTENT.decode_models(listed) == ("a", "b")


def test_a_stream_is_events_or_an_array() -> None:
    assert isinstance(GEMINI_CONTENT.framer("text/event-stream"), SSEFramer)
    assert isinstance(GEMINI_CONTENT.framer("application/json"), JSONArrayFramer)
