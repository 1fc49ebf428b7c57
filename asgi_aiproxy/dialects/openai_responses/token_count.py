"""Counts tokens: POST /v1/responses/input_tokens.

https://platform.openai.com/docs/api-reference/responses/input-tokens
"""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.openai_responses.request_encoder import encode_request
from asgi_aiproxy.messages import Request

OPERATION, PATH = "responses.input_tokens", "/responses/input_tokens"
# The members of a request that the operation takes, too.
_COUNTED = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls"}
    | {"reasoning", "text", "truncation"}
)


def encode_count_request(request: Request) -> ProviderRequest:
    """Write a request to count the tokens of `request`. Raises APIError as `encode_request`."""
    draft = encode_request(request)
    body = {name: value for name, value in draft.body.items() if name in _COUNTED}
    return ProviderRequest(PATH, body, ignored=draft.ignored)


def encode_count(count: int) -> bytes:
    """Write the response."""
    return _json.dumps({"object": "response.input_tokens", "input_tokens": count})


def decode_count(body: bytes) -> int:
    """Read the response. Raises APIError if there is no count in it."""
    return _parsing.token_count(body, "input_tokens")
