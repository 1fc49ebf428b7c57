"""Requests of one client API, as providers with other APIs get them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from asgi_aiproxy.dialects import Operation, ProviderRequest
from asgi_aiproxy.messages import Request
from tests.support.stream_fixtures import faces, languages

# Models without the peculiarities of one generation.
MODELS = {
    "openai_chat": "gpt-test",
    "anthropic": "claude-sonnet-4-0",
    "gemini": "gemini-2.5-flash",
    "ollama": "llama-test",
    "bedrock": "us.anthropic.claude-sonnet-4-0-v1:0",
    "coze": "7379462189365198898",
    "cohere": "command-a-reasoning-08-2025",
}
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def decode_client_request(
    face: str, body: Any, *, model: str = "m", stream: bool = False
) -> Request:
    """Decode a client's request. `model` and `stream` are those in the path, if any."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    operation = Operation("chat", "/", model=model, stream=stream, chat=True)
    return faces()[face].decode_request(operation, data)


def written(language: str, request: Request, model: str | None = None) -> ProviderRequest:
    """Encode the request for a provider of `language`. The result can be sent as JSON."""
    request = msgspec.structs.replace(request, model=model or MODELS[language])
    draft = languages()[language].encode_request(request)
    json.dumps(draft.body)
    return draft


def openai(messages: list[dict[str, Any]] | None = None, **members: Any) -> Request:
    """Decode a request in OpenAI's format."""
    return decode_client_request(
        "openai_chat", {"model": "m", "messages": messages or HI, **members}
    )


def anthropic(messages: list[dict[str, Any]] | None = None, **members: Any) -> Request:
    """Decode a request in Anthropic's format."""
    body = {"model": "m", "max_tokens": 100, "messages": messages or HI, **members}
    return decode_client_request("anthropic", body)


def gemini(contents: Any = None, **members: Any) -> Request:
    """Decode a request in Google's format."""
    contents = contents or [{"role": "user", "parts": [{"text": "Hi"}]}]
    return decode_client_request("gemini", {"contents": contents, **members})
