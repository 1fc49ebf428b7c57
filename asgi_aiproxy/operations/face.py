"""`OperationFace`: a client API that has one operation and belongs to no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from asgi_aiproxy.dialects import OPENAI_CHAT, _parsing
from asgi_aiproxy.dialects.base import (
    InboundDialect,
    NativeStream,
    Operation,
    ProviderRequest,
    RequestSummary,
)
from asgi_aiproxy.dialects.openai_chat import split_provider
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.framing import encode_frame
from asgi_aiproxy.messages import Request, Response
from asgi_aiproxy.operations.base import AnyClientOperation, ClientOperation


class OperationFace(InboundDialect):
    """Serves the `endpoints` of a `ClientOperation`, the `client`.

    Its requests name their model in the member `model`. Chat is not part of it.
    """

    name = "operation"
    keepalive = None

    def __init__(self, client: AnyClientOperation) -> None:
        self.client = client
        self.name = client.kind  # type: ignore[misc]
        self.request_headers = client.request_headers  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"OperationFace({self.client!r})"

    def match(self, method: str, path: str) -> Operation | None:
        """The operation of a path."""
        return self.client.endpoints.get(path) if method == "POST" else None

    def summarize(self, operation: Operation, body: bytes) -> RequestSummary:
        """Read model, streaming, and the requested provider."""
        fields = _parsing.fields(body)
        return RequestSummary(
            model=_parsing.read_model(fields, operation.default_model),
            stream=_parsing.member(fields, "stream", _parsing.flag) is True,
            fields=fields,
            provider=split_provider(fields),
        )

    def encode_error(self, error: APIError) -> bytes:
        """Write an error body."""
        own = self.client.encode_error(error)
        return own if own is not None else OPENAI_CHAT.encode_error(error)

    def encode_stream_error(self, error: APIError) -> bytes:
        """Write an error frame."""
        return encode_frame(self.encode_error(error))

    def native_request(
        self, operation: Operation, model: str, fields: Mapping[str, msgspec.Raw], *, stream: bool
    ) -> ProviderRequest:
        """The client's own request, with `model` as its model."""
        body: dict[str, Any] = {**fields, "model": model}
        if split_provider(fields):
            del body["provider"]  # it selected the provider
        return ProviderRequest(operation.path, body)

    def decode_request(self, operation: Operation, body: bytes) -> Request:
        """Not a chat API."""
        self._no_chat()

    def encode_response(self, response: Response, request: Request) -> bytes:
        """Not a chat API."""
        self._no_chat()

    def encoder(self, request: Request) -> NoReturn:
        """Not a chat API."""
        self._no_chat()

    def native_stream(self, *, usage_wanted: bool, strict_format: bool) -> NativeStream:
        """Not a chat API."""
        self._no_chat()

    def _no_chat(self) -> NoReturn:
        raise NotImplementedError(f"{self.name} is not a chat API")


def as_face(api: InboundDialect | AnyClientOperation) -> InboundDialect:
    """The dialect that serves `api`. Raises ConfigurationError if it cannot be served."""
    if isinstance(api, ClientOperation):
        return OperationFace(api)
    if isinstance(api, InboundDialect):
        return api
    raise ConfigurationError(
        f"apis= takes dialects and operations, not {type(api).__name__}: an InboundDialect or a "
        "ClientOperation."
    )
