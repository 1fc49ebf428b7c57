"""Anthropic's dialect: paths, routing, lists of models, requests that pass through."""

from __future__ import annotations

import json

import msgspec
import pytest

from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, Operation
from asgi_aiproxy.errors import APIError, ErrorKind
from tests.support.dialect_requests import HI

MESSAGES = Operation("messages", "/v1/messages", chat=True)


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", "/v1/messages", True),
        ("GET", "/v1/messages", False),
        ("POST", "/v1/messages/", False),
        ("POST", "/v1/complete", False),
    ],
)
def test_paths_select_operations(method: str, path: str, known: bool) -> None:
    assert (ANTHROPIC_MESSAGES.match(method, path) is not None) is known


def test_routing_reads_model_and_streaming_and_forwards_the_rest() -> None:
    body = {"model": "m", "max_tokens": 1, "messages": HI, "stream": True, "unknown": {"a": 1}}
    head = ANTHROPIC_MESSAGES.summarize(MESSAGES, json.dumps(body).encode())
    assert (head.model, head.stream, head.usage_wanted) == ("m", True, True)
    draft = ANTHROPIC_MESSAGES.native_request(MESSAGES, "other", head.fields, stream=True)
    assert draft.path == "/v1/messages"
    assert json.loads(msgspec.json.encode(draft.body)) == {**body, "model": "other"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "could not be read as JSON"),
        (b"[]", None, "must be a JSON object"),
        (b'{"model":"\xff"}', None, "not valid UTF-8"),
        (b'{"model":"m","messages":[],"x":"\\ud83d"}', None, "half of a surrogate pair"),
        (b'{"model":"m"}', "messages", "Missing required parameter"),
        (b'{"model":"m","messages":"Hi"}', "messages", "expected an array"),
        (b'{"messages":[]}', "model", "Missing required parameter"),
        (b'{"model":"m","messages":[],"stream":1}', "stream", "Invalid type"),
    ],
)
def test_a_body_that_cannot_be_routed_is_refused_with_the_name_of_the_member(
    body: bytes, param: str | None, message: str
) -> None:
    with pytest.raises(APIError, match=message) as caught:
        ANTHROPIC_MESSAGES.summarize(MESSAGES, body)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)


def test_models_are_listed() -> None:
    draft = ANTHROPIC_MESSAGES.models_request()
    assert (draft.path, draft.query) == ("/v1/models", "limit=1000")
    assert ANTHROPIC_MESSAGES.decode_models(b'{"data":[{"id":"a"},{"id":"b"}]}') == ("a", "b")
