"""What a shim serves besides calls of models; imported and made with the first request for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy.dialects.base import InboundDialect, Operation
from asgi_aiproxy.exchange.relay import Relay
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.principal import Principal

if TYPE_CHECKING:
    from asgi_aiproxy.keys.resource_records import ResourceOwnership
    from asgi_aiproxy.model_list import FactsSource, ModelCatalog
    from asgi_aiproxy.responses_state import ResponseState
    from asgi_aiproxy.responses_state.service import ResponsesService
    from asgi_aiproxy.vendor_resources import VendorResources

_T = TypeVar("_T")


class ShimServices:
    """Lists of models, files and batches, and what goes beyond one request of the Responses API.

    Arguments:

    - `relay`, `faces`: what the exchanges of the shim share, and the APIs that it serves.
    - `prices`: are shown in the list of models.
    - `response_state`, `max_body`, `websocket_idle`, `allow_client_keys`, `ownership`: as given to
      the shim.
    - `proxy_options`: arguments of the `PassthroughProxy` for files and batches.
    """

    def __init__(
        self,
        relay: Relay,
        faces: Sequence[InboundDialect],
        *,
        prices: FactsSource | None,
        response_state: ResponseState | None,
        max_body: int,
        websocket_idle: float,
        allow_client_keys: bool,
        ownership: ResourceOwnership | None,
        **proxy_options: Any,
    ) -> None:
        self._relay = relay
        self._faces = faces
        self._prices = prices
        self._response_state = response_state
        self._max_body = max_body
        self._websocket_idle = websocket_idle
        self._allow_client_keys = allow_client_keys
        self._ownership = ownership
        self._proxy_options = proxy_options

    @cached_property
    def responses(self) -> ResponsesService:
        """What goes beyond one request of the Responses API."""
        from asgi_aiproxy.responses_state.service import ResponsesService

        made = ResponsesService(
            self._response_state, max_body=self._max_body, idle=self._websocket_idle
        )
        return self._kept("responses", made)

    @cached_property
    def _models(self) -> ModelCatalog:
        from asgi_aiproxy.model_list import ModelCatalog

        return self._kept("_models", ModelCatalog(self._relay.transport, prices=self._prices))

    @cached_property
    def _resources(self) -> VendorResources:
        from asgi_aiproxy.vendor_resources import VendorResources

        made = VendorResources(
            self._relay.router,
            self._faces,
            {"transport": self._relay.transport, **self._proxy_options},
            allow_client_keys=self._allow_client_keys,
            ownership=self._ownership,
            recorder=self._relay.recorder,
            receipts=self._relay.receipts,
        )
        return self._kept("_resources", made)

    def _kept(self, name: str, made: _T) -> _T:
        """The value of a cached property, also if two threads come to it at once."""
        kept: _T = self.__dict__.setdefault(name, made)
        return kept

    async def send_models(
        self,
        scope: Scope,
        send: Send,
        face: InboundDialect,
        operation: Operation,
        principal: Principal,
    ) -> None:
        """Send the models that a caller may use, or one of them. Raises APIError."""
        from asgi_aiproxy.model_requests import send_models

        listed = self._relay.router, self._models
        await send_models(scope, send, face, operation, principal, *listed)

    async def serve_resource(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request for a file or a batch; returns False for any other."""
        return await self._resources(scope, receive, send)

    async def find_key(self, request: GatewayRequest) -> GatewayRequest:
        """The request with the key that holds the files it refers to. Raises APIError."""
        return await self._resources.find_key(request)

    async def aclose(self) -> None:
        """Write what is still to be recorded."""
        if "_resources" in self.__dict__:
            await self._resources.aclose()
