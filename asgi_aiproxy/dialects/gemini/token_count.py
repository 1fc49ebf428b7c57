"""Counts tokens: models/{model}:countTokens.

A request holds either `contents` alone, or a whole request in `generateContentRequest`; the rest of
a request beside `contents` is what Vertex AI takes. https://ai.google.dev/api/tokens
"""

from __future__ import annotations

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.gemini import request_encoder, requests, schemas
from asgi_aiproxy.dialects.gemini.model_names import check_model
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.inspection import strip_models_prefix
from asgi_aiproxy.messages import Request

OPERATION, METHOD = "countTokens", "countTokens"
_WHOLE = "generateContentRequest"


def decode_count_request(model: str, body: bytes) -> Request:
    """Read a request. Raises APIError naming the member that is invalid."""
    parsed = requests.parse(body)
    whole = parsed.get(_WHOLE)
    if whole is None:
        return requests.read_request(model, parsed)
    if not isinstance(whole, dict):
        raise invalid(f"Invalid type for '{_WHOLE}': expected an object.", _WHOLE, "invalid_type")
    check_model(whole.get("model"), model, f"{_WHOLE}.model")
    try:
        return requests.read_request(model, schemas.normal(whole))
    except APIError as error:
        error.param = f"{_WHOLE}.{error.param}" if error.param else _WHOLE
        raise


def encode_count_request(request: Request) -> ProviderRequest:
    """Write a request to count the tokens of `request`. Raises APIError as `encode_request`."""
    draft = request_encoder.encode_request(request)
    body = {"model": f"models/{strip_models_prefix(request.model)}", **draft.body}
    path = request_encoder.method_path(request.model, METHOD)
    return ProviderRequest(path, {_WHOLE: body}, ignored=draft.ignored)


def encode_count(count: int) -> bytes:
    """Write the response."""
    return _json.dumps({"totalTokens": count})


def decode_count(body: bytes) -> int:
    """Read the response. Raises APIError if there is no count in it."""
    return _parsing.token_count(body, "totalTokens")
