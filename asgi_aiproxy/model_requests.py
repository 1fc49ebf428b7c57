"""Answers requests for the list of models, and for one of them."""

from __future__ import annotations

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Scope, Send
from asgi_aiproxy._request_id import named, request_id
from asgi_aiproxy.dialects.base import InboundDialect, Operation
from asgi_aiproxy.dialects.model_lists import ListedModel, format_for
from asgi_aiproxy.exchange.error_mapping import model_not_found_error
from asgi_aiproxy.exchange.targets import serving
from asgi_aiproxy.model_list import ModelCatalog
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers.base import Router


async def send_models(
    scope: Scope,
    send: Send,
    face: InboundDialect,
    operation: Operation,
    principal: Principal,
    router: Router,
    catalog: ModelCatalog,
) -> None:
    """Send the models that a caller may use, or one of them. Raises APIError."""
    written = format_for(face.name)
    body = b""
    if operation.name == "model":
        targets = serving(principal, router.targets(operation.model))
        if not targets or not principal.may_use(operation.model):
            raise model_not_found_error(operation.model)
        model = await catalog.find(router, operation.model)
        body = written.write_model(model or ListedModel(operation.model, ""))
    elif operation.name == "models":
        listed = [m for m in await catalog.models(router) if principal.may_use(m.name)]
        if principal.providers:
            listed = [m for m in listed if serving(principal, router.targets(m.name))]
        query = scope.get("query_string", b"").decode("latin-1")
        body = written.write_list(listed, query)
    headers = [named(request_id(scope))]
    head = scope["method"] == "HEAD"
    await _asgi.send_response(send, 200, body, headers, head=head)
