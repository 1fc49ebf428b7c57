"""Convert operations other than chat for a provider with another API: token counts, embeddings.

Theory of operation. `convert` makes two things of a client's request and a target: the provider's
request, and the function that turns the provider's response into the client's. Both use the
neutral form of the operation: a chat request and a number, or an `EmbeddingsRequest` and an
`EmbeddingsResponse`.

Which API of a provider is used follows from its `native_operations` (or its `embeddings`): OpenAI's
counter of tokens, for example, is that of its Responses API, whatever dialect chat requests are
sent in. A provider without an operation that counts tokens costs no request: the count is
estimated from what a chat request would send, and `Conversion.response` holds the response.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    GEMINI_CONTENT,
    GEMINI_EMBEDDINGS,
    NEUTRAL_EMBEDDINGS,
    OPENAI_EMBEDDINGS,
    OPENAI_RESPONSES,
)
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.dialects.embeddings import (
    ClientEmbeddingsAPI,
    EmbeddingsAPI,
    EmbeddingsRequest,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import SentRequest
from asgi_aiproxy.prices.token_estimate import estimate_size
from asgi_aiproxy.providers.base import Provider, Target

# A whole body of a provider: the client's body, the model, and the usage.
TranslateBody = Callable[[bytes], tuple[bytes, str, Usage | None]]

_COUNTERS: dict[str, OutboundDialect] = {
    dialect.token_count_operation: dialect
    for dialect in (ANTHROPIC_MESSAGES, GEMINI_CONTENT, OPENAI_RESPONSES)
}
_EMBEDDINGS: tuple[EmbeddingsAPI, ...] = (OPENAI_EMBEDDINGS, GEMINI_EMBEDDINGS)
_CLIENT_EMBEDDINGS: dict[str, ClientEmbeddingsAPI] = {
    "embeddings": OPENAI_EMBEDDINGS,
    "embedContent": GEMINI_EMBEDDINGS,
    "batchEmbedContents": GEMINI_EMBEDDINGS,
    NEUTRAL_EMBEDDINGS.operation: NEUTRAL_EMBEDDINGS,
}


class Conversion(msgspec.Struct, frozen=True, gc=False):
    """The provider's request, and how its response is read.

    With `response`, the client's response is known and no request is sent.
    """

    draft: ProviderRequest
    translate: TranslateBody | None = None
    response: bytes | None = None


def convert(request: GatewayRequest, target: Target) -> Conversion:
    """Convert a request for a target that does not have its operation. Raises APIError."""
    if request.operation.converts == "token_count":
        return _token_count(request, target)
    api = embeddings_api(target.provider)
    if request.operation.converts == "embeddings" and api is not None:
        return _embeddings(request, target, api)
    raise APIError(
        ErrorKind.NOT_FOUND,
        f"The provider {target.provider.name!r} of model {request.model!r} does not offer "
        f"{request.operation.name}.",
        code="unsupported_operation",
    )


def read_usage(request: GatewayRequest, body: bytes) -> tuple[str, Usage | None]:
    """Model and usage of a response that passes through, if they are where the API puts them."""
    api = _CLIENT_EMBEDDINGS.get(request.operation.name, OPENAI_EMBEDDINGS)
    return api.decode_usage(body)


# token counts


def _token_count(request: GatewayRequest, target: Target) -> Conversion:
    neutral = msgspec.structs.replace(request.request, model=target.model)
    dialect = _counter(target.provider)
    if dialect is not None:
        counter, face = dialect, request.face

        def translate(body: bytes) -> tuple[bytes, str, Usage | None]:
            return face.encode_token_count(counter.decode_token_count(body)), "", None

        return Conversion(counter.encode_token_count_request(neutral), translate)
    draft = target.provider.dialect.encode_request(neutral)
    count = _estimate(target, draft)
    return Conversion(draft, response=request.face.encode_token_count(count))


def _counter(provider: Provider) -> OutboundDialect | None:
    """The dialect in which a provider counts tokens: its own, or another that it has."""
    own = provider.dialect
    if own.token_count_operation and own.token_count_operation in provider.native_operations:
        return own
    for operation, dialect in _COUNTERS.items():
        if operation in provider.native_operations:
            return dialect
    return None


def _estimate(target: Target, draft: ProviderRequest) -> int:
    """The usual number of tokens of a chat request."""
    name, body = target.provider.name, _json.dumps(draft.body)
    return estimate_size(SentRequest(name, target.model, draft.path, body, draft.body), 0).usual


# embeddings


def embeddings_api(provider: Provider) -> EmbeddingsAPI | None:
    """The API for embeddings that a provider has; None if it has none."""
    if provider.embeddings is not None:
        return provider.embeddings
    for api in _EMBEDDINGS:
        if api.operation in provider.native_operations:
            return api
    return None


def _embeddings(request: GatewayRequest, target: Target, api: EmbeddingsAPI) -> Conversion:
    client = _CLIENT_EMBEDDINGS[request.operation.name]
    wanted = client.decode_request(request.operation, request.body)
    sent: EmbeddingsRequest = msgspec.structs.replace(wanted, model=target.model)

    def translate(body: bytes) -> tuple[bytes, str, Usage | None]:
        response = api.decode_response(body, sent)
        if len(response.vectors) != len(sent.inputs):
            raise APIError(
                ErrorKind.UPSTREAM,
                f"The provider sent {len(response.vectors)} embeddings for "
                f"{len(sent.inputs)} inputs.",
            )
        return client.encode_response(response, sent), response.model, response.usage

    return Conversion(api.encode_request(sent), translate)
