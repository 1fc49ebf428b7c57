"""Convert operations other than chat for a provider with another API.

Theory of operation. `convert` makes two things of a client's request and a target: the provider's
request, and the function that turns the provider's response into the client's. Both use the
neutral form of the operation: a chat request and a number for the count of its tokens, or the
request and response of a `ClientOperation` (see `asgi_aiproxy.operations`).

Which API of a provider is used follows from its `operations` and its `native_operations`: OpenAI's
counter of tokens, for example, is that of its Responses API, whatever dialect chat requests are
sent in. A provider without an operation that counts tokens costs no request: the count is
estimated from what a chat request would send, and `Conversion.response` holds the response.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, GEMINI_CONTENT, OPENAI_RESPONSES
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.dialects.tool_names import valid_names
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations import CLIENTS, NATIVE_APIS, OperationFace
from asgi_aiproxy.operations.base import (
    NO_UNITS,
    AnyClientOperation,
    AnyOperationAPI,
    ClientOperation,
    FollowUp,
    OperationAPI,
)
from asgi_aiproxy.operations.embeddings.native_batches import NativeBatches
from asgi_aiproxy.prices import SentRequest
from asgi_aiproxy.prices.token_estimate import estimate_size
from asgi_aiproxy.providers.base import Provider, Target

# The whole bodies of a provider's responses: the client's body, the model, and the usage.
TranslateBodies = Callable[[Sequence[bytes]], tuple[bytes, str, Usage | None]]

_COUNTERS: dict[str, OutboundDialect] = {
    dialect.token_count_operation: dialect
    for dialect in (ANTHROPIC_MESSAGES, GEMINI_CONTENT, OPENAI_RESPONSES)
}


class Conversion(msgspec.Struct, frozen=True, gc=False):
    """The provider's request, and how its response is read.

    `translate` is None if the response passes through. `media_type` is that of the client's
    response; empty if it is JSON. With `response`, it is known and no request is sent. `follow_up`
    returns the next request of the same call, if one may be needed; `parts` are requests that can
    be sent at the same time, and `part_usage` what the response to one is charged for. If some of
    them fail, the response has the others, provided that there is a member `reducible` of the
    request to list in `aiproxy-ignored`. `earlier` are the bodies before the one that is read.
    """

    draft: ProviderRequest
    translate: TranslateBodies | None = None
    response: bytes | None = None
    media_type: str = ""
    follow_up: Callable[[Sequence[bytes]], FollowUp | None] | None = None
    parts: Sequence[ProviderRequest] = ()
    part_usage: Callable[[bytes], Usage | None] | None = None
    reducible: str = ""
    earlier: tuple[bytes, ...] = ()


def convert(request: GatewayRequest, target: Target, *, strict: bool) -> Conversion:
    """Convert a request for a target that does not have its operation. Raises APIError.

    `strict`: the response must have all that was requested.
    """
    if request.operation.converts == "token_count":
        return _token_count(request, target)
    client = client_operation(request)
    api = operation_api(target.provider, request.operation.converts)
    if client is not None and api is not None:
        return _convert(request, target, client, api, strict=strict)
    raise APIError(
        ErrorKind.NOT_FOUND,
        f"The provider {target.provider.name!r} of model {request.model!r} does not offer "
        f"{request.operation.name}.",
        code="unsupported_operation",
    )


def streams_events(request: GatewayRequest, targets: Sequence[Target]) -> bool:
    """Whether the response is an event stream whichever target answers: each needs a conversion."""
    client = client_operation(request)
    if client is None or not client.streams or request.sent_once:
        return False
    in_form = request.form.get("stream") if request.form is not None else None
    if not request.stream and (in_form or "").lower() not in ("true", "1"):
        return False
    return all(
        request.operation.name not in target.provider.native_operations
        and operation_api(target.provider, request.operation.converts) is not None
        for target in targets
    )


def in_batches(request: GatewayRequest, draft: ProviderRequest) -> Conversion | None:
    """The first of the requests for more embeddings than the vendor makes at once.

    `draft` is the request for all; None if it is not too large. Raises APIError.
    """
    batches = NativeBatches.of(request.operation.name, draft.body)
    if batches is None:
        return None

    first, *others = [msgspec.structs.replace(draft, body=body) for body in batches.bodies()]

    def translate(bodies: Sequence[bytes]) -> tuple[bytes, str, Usage | None]:
        joined = batches.join(bodies)
        return joined, *read_usage(request, joined)

    return Conversion(
        first, translate, parts=others, part_usage=lambda body: read_usage(request, body)[1]
    )


def read_usage(request: GatewayRequest, body: bytes) -> tuple[str, Usage | None]:
    """Model and usage of a response that passes through, if they are where the API puts them."""
    client = client_operation(request)
    return (client or CLIENTS["embeddings"]).decode_usage(body)


def client_operation(request: GatewayRequest) -> AnyClientOperation | None:
    """The client's API of the operation; None if it is not converted."""
    if isinstance(request.face, OperationFace):
        return request.face.client
    return CLIENTS.get(request.operation.name)


def units(request: GatewayRequest) -> Usage:
    """What a request costs beside tokens, as far as it is known before it is sent."""
    client = client_operation(request)
    if client is None or type(client).units is ClientOperation.units:
        return NO_UNITS
    if request.sent_once:
        return client.upload_units(request.length)
    try:
        body = request.form if request.form is not None else request.body
        return client.units(client.decode_request(request.operation, body))
    except APIError:  # what passes through may have forms that cannot be converted
        return NO_UNITS


# token counts


def _token_count(request: GatewayRequest, target: Target) -> Conversion:
    neutral = msgspec.structs.replace(request.request, model=target.model)
    dialect = _counter(target.provider)
    if dialect is not None:
        counter, face = dialect, request.face

        def translate(bodies: Sequence[bytes]) -> tuple[bytes, str, Usage | None]:
            return face.encode_token_count(counter.decode_token_count(bodies[-1])), "", None

        neutral, _ = valid_names(neutral, counter.tool_names)
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


# other operations


def operation_api(provider: Provider, kind: str) -> AnyOperationAPI | None:
    """The API of a provider for an operation; None if it has none."""
    for api in provider.operations:
        if api.kind == kind:
            return api
    for api in NATIVE_APIS:
        if api.kind == kind and api.operation in provider.native_operations:
            return api
    return None


def _convert(
    request: GatewayRequest,
    target: Target,
    client: AnyClientOperation,
    api: AnyOperationAPI,
    *,
    strict: bool,
) -> Conversion:
    body = request.form if request.form is not None else request.body
    wanted = client.decode_request(request.operation, body)
    sent = msgspec.structs.replace(wanted, model=target.model)
    draft = api.encode_request(sent)
    if api.passes:
        return Conversion(draft)

    def translate(bodies: Sequence[bytes]) -> tuple[bytes, str, Usage | None]:
        response = api.decode_response(bodies, sent)
        usage = response.usage
        if usage is None and (counted := client.units(sent)) != NO_UNITS:
            usage = counted
        return client.encode_response(response, sent), response.model, usage

    follows = type(api).follow_up is not OperationAPI.follow_up
    return Conversion(
        draft,
        translate,
        media_type=client.media_type(sent),
        follow_up=(lambda bodies: api.follow_up(bodies, sent)) if follows else None,
        parts=api.parts(sent),
        part_usage=lambda body: api.part_usage(body, sent),
        reducible="" if strict else api.reducible,
    )
