"""OpenAI's dialect: paths, routing, lists of models, requests that pass through."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import OPENAI_CHAT, Operation
from asgi_aiproxy.errors import APIError, ErrorKind
from tests.dialects.openai_chat.samples import (
    CHAT,
    head,
)
from tests.support.dialect_requests import HI


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/chat/completions", "chat.completions"),
        ("POST", "/v1/embeddings", "embeddings"),
        ("POST", "/v1/moderations", "moderations"),
        ("POST", "/v1/images/generations", "images.generations"),
        ("POST", "/v1/images/edits", "images.edits"),
        ("POST", "/v1/images/variations", "images.variations"),
        ("POST", "/v1/audio/speech", "audio.speech"),
        ("POST", "/v1/audio/transcriptions", "audio.transcriptions"),
        ("POST", "/v1/audio/translations", "audio.translations"),
        ("GET", "/v1/models", "models"),
        ("GET", "/v1/models/gpt-4o", "model"),
        ("GET", "/v1/models/", None),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/models", None),
        ("POST", "/chat/completions", None),
        ("POST", "/v1/chat/completions/", None),
        ("DELETE", "/v1/models/x", None),
    ],
)
def test_paths_select_operations(method: str, path: str, name: str | None) -> None:
    found = OPENAI_CHAT.match(method, path)
    assert (found and found.name) == name


def test_only_chat_can_be_translated() -> None:
    chat = OPENAI_CHAT.match("POST", "/v1/chat/completions")
    assert chat is not None
    assert chat.chat
    embeddings = OPENAI_CHAT.match("POST", "/v1/embeddings")
    assert embeddings is not None
    assert not embeddings.chat


def test_the_model_in_a_path_may_hold_a_slash() -> None:
    found = OPENAI_CHAT.match("GET", "/v1/models/openai%2Fgpt%204")
    assert found is not None
    assert found.model == "openai/gpt 4"


def test_routing_reads_model_streaming_usage_and_provider() -> None:
    plain = head({"model": "m", "messages": HI})
    assert (plain.model, plain.stream, plain.usage_wanted, plain.provider) == (
        "m",
        False,
        False,
        "",
    )
    full = head(
        {
            "model": "m",
            "messages": HI,
            "stream": True,
            "stream_options": {"include_usage": True, "include_obfuscation": False},
            "provider": "groq",
        }
    )
    assert (full.model, full.stream, full.usage_wanted, full.provider) == ("m", True, True, "groq")
    null = head({"model": "m", "messages": HI, "stream": None, "stream_options": None})
    assert (null.stream, null.usage_wanted) == (False, False)
    # OpenRouter has an object in the place of our word.
    assert head({"model": "m", "messages": HI, "provider": {"order": ["a"]}}).provider == ""


BAD_BODIES: list[tuple[Any, str | None, str | None, str]] = [
    (b"", None, None, "could not be read as JSON"),
    (b"hello", None, None, "could not be read as JSON"),
    (b'{"model":"m",', None, None, "could not be read as JSON"),
    (b"[]", None, None, "must be a JSON object"),
    (b'"x"', None, None, "must be a JSON object"),
    (b'{"model":"\xff","messages":[]}', None, None, "not valid UTF-8"),
    (b'{"model":"m","messages":[],"x":"\\ud83d"}', None, None, "half of a surrogate pair"),
    (b'{"model":"\\ud83d\\ude00","messages":[],}', None, None, "trailing comma"),
    (b'{"model":"m","messages":' + b"[" * 10**6 + b"]" * 10**6 + b"}", None, None, "too deeply"),
    (b'{"model":"m","messages":[],"seed":NaN}', None, None, "could not be read as JSON"),
    ({"messages": HI}, "model", "missing_required_parameter", "Missing required parameter"),
    ({"model": "", "messages": HI}, "model", "missing_required_parameter", "Missing required"),
    ({"model": None, "messages": HI}, "model", "missing_required_parameter", "Missing required"),
    ({"model": 7, "messages": HI}, "model", "invalid_type", "Invalid type for 'model'"),
    ({"model": "m"}, "messages", "missing_required_parameter", "Missing required parameter"),
    ({"model": "m", "messages": "Hi"}, "messages", "invalid_type", "expected an array"),
    ({"model": "m", "messages": None}, "messages", "invalid_type", "expected an array"),
    ({"model": "m", "messages": HI, "stream": "yes"}, "stream", "invalid_type", "Invalid type"),
    ({"model": "m", "messages": HI, "stream_options": 1}, "stream_options", "invalid_type", "Inv"),
    ({"model": "m", "messages": HI, "provider": "x\n"}, None, None, ""),
]


@pytest.mark.parametrize(("body", "param", "code", "message"), BAD_BODIES[:-1])
def test_a_body_that_cannot_be_routed_is_refused_with_the_name_of_the_member(
    body: Any, param: str | None, code: str | None, message: str
) -> None:
    with pytest.raises(APIError) as caught:
        head(body)
    error = caught.value
    assert (error.kind, error.status, error.param, error.code) == (
        ErrorKind.INVALID,
        400,
        param,
        code,
    )
    assert message in error.message
    assert error.message.endswith(".")


def test_operations_other_than_chat_require_only_a_model() -> None:
    assert head({"model": "m"}, Operation("embeddings", "/embeddings")).model == "m"


def forward(body: dict[str, Any], model: str = "other", stream: bool = True) -> Any:
    draft = OPENAI_CHAT.native_request(CHAT, model, head(body).fields, stream=stream)
    assert draft.path == "/chat/completions"
    return json.loads(msgspec.json.encode(draft.body))


def test_a_request_passes_with_its_model_replaced_and_usage_requested() -> None:
    body = {"model": "m", "stream": True, "messages": HI, "unknown": {"a": [1]}}
    assert forward(body) == {
        **body,
        "model": "other",
        "stream_options": {"include_usage": True},
    }
    options = {"include_usage": False, "include_obfuscation": False}
    assert forward({**body, "stream_options": options})["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }
    assert forward({**body, "stream_options": None})["stream_options"] == {"include_usage": True}


def test_a_request_without_streaming_passes_unchanged() -> None:
    body = {"model": "m", "messages": HI, "temperature": 0.0}
    assert forward(body, "m", stream=False) == body


def test_the_gateways_provider_member_is_removed_and_openrouters_is_kept() -> None:
    body = {"model": "m", "messages": HI}
    assert "provider" not in forward({**body, "provider": "groq"})
    assert forward({**body, "provider": {"order": ["a"]}})["provider"] == {"order": ["a"]}


def test_models_are_listed() -> None:
    assert OPENAI_CHAT.models_request().path == "/models"
    listed = b'{"object":"list","data":[{"id":"a"},{"id":7},{"x":1},8,{"id":"b"}]}'
    assert OPENAI_CHAT.decode_models(listed) == ("a", "b")
    bare = b'[{"id":"a"},{"id":"b"}]'  # as GitHub's and Together's
    assert OPENAI_CHAT.decode_models(bare) == ("a", "b")
    for body in (b"", b"{}", b'{"data":{}}'):
        with pytest.raises(ValueError, match="not a list"):
            OPENAI_CHAT.decode_models(body)
