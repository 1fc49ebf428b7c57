"""Counts tokens: POST /v1/messages/count_tokens.

https://platform.claude.com/docs/en/api/messages-count-tokens
"""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.anthropic.request_encoder import encode_request
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.messages import Request

OPERATION, PATH = "messages.count_tokens", "/v1/messages/count_tokens"
# The members of a message request that the operation takes, too.
_COUNTED = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
    | {"cache_control", "context_management", "mcp_servers"}
)


def encode_count_request(request: Request) -> ProviderRequest:
    """Write a request to count the tokens of `request`. Raises APIError as `encode_request`."""
    draft = encode_request(request)
    body = {name: value for name, value in draft.body.items() if name in _COUNTED}
    return ProviderRequest(PATH, body, headers=draft.headers, ignored=draft.ignored)


def encode_count(count: int) -> bytes:
    """Write the response."""
    return _json.dumps({"input_tokens": count})


def decode_count(body: bytes) -> int:
    """Read the response. Raises APIError if there is no count in it."""
    return _parsing.token_count(body, "input_tokens")
