"""Hooks of a proxy: what they see of a request, and how its response is checked.

A request for an operation of an API that the gateway knows is seen as through a shim: with its
neutral form, if it is a chat request, and its response as neutral events. Of any other request the
hooks see the raw body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Scope
from asgi_aiproxy._cancellation import RequestMonitor
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.dialects.base import Dialect, InboundDialect, Operation
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.exchange.guarded import unchecked_response_error
from asgi_aiproxy.exchange.guarded_content import checked_error, media_type
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.hooks.base import Call, checked_value
from asgi_aiproxy.hooks.chain import HookChain
from asgi_aiproxy.messages import Response, unfold
from asgi_aiproxy.passthrough.buffered_response import BufferedResponse
from asgi_aiproxy.passthrough.guarded_response import GuardedResponse, checked_response
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.providers.client_apis import find_operation
from asgi_aiproxy.upstream.base import UpstreamResponse, header

Unparsed = Literal["check", "refuse"]

_BODILESS = frozenset({204, 304})


class ProxiedCall(Call):
    """A request to a proxy, as hooks see it.

    `known`: it is an operation of an API that the gateway knows. Else `face` is `passthrough`,
    `operation` is the pattern of its path, `request` is None, and it cannot be answered.
    """

    def __init__(self, request: GatewayRequest, scope: Scope, known: InboundDialect | None) -> None:
        super().__init__(request, scope)
        self._known = known

    @property
    def face(self) -> str:
        """The API of the request; `passthrough` if it is not known."""
        return self._known.name if self._known is not None else "passthrough"

    @property
    def body(self) -> bytes:
        """The body as the client sent it. It may be set."""
        return self._sent.body

    @body.setter
    def body(self, body: bytes) -> None:
        fields = _fields(checked_value("body", body, bytes))
        model = _model(fields) or self._sent.operation.model
        self._replace(body=body, fields=fields, model=model, changed=None)

    @property
    def model(self) -> str:
        """The model that the body or the path names. It may be set if the body names it."""
        return self._sent.model

    @model.setter
    def model(self, name: str) -> None:
        checked_value("model", name, str)
        fields = dict(self._sent.fields)
        if name == self._sent.model:
            return
        if not isinstance(_model(fields), str) or not _model(fields):
            raise ConfigurationError(
                f"a hook cannot change the model of {self.operation}: its body names none."
            )
        fields["model"] = msgspec.Raw(_json.dumps(name))
        self._replace(model=name, fields=fields, body=msgspec.json.encode(fields))

    @property
    def response(self) -> Response | None:
        """The response that a hook has given, so that no provider is called."""
        return self._sent.answer

    @response.setter
    def response(self, response: Response) -> None:
        if self._known is None or not self._sent.operation.chat:
            raise ConfigurationError(f"a hook cannot answer {self.operation}, only chat requests.")
        self._replace(answer=checked_value("response", response, Response))

    @property
    def sent_headers(self) -> Mapping[str, str]:
        """The headers that the hooks have added, by their names in lower case."""
        return self._sent.sent_headers

    def body_to_send(self) -> bytes:
        """The body that the hooks have left. Raises APIError if it cannot be written."""
        sent, face = self._sent, self._known
        if sent.changed is None or not isinstance(face, Dialect):
            return sent.body
        changed = msgspec.structs.replace(sent.changed, model=sent.model)
        return _json.dumps(face.encode_request(changed).body)

    def encoded_response(self) -> BufferedResponse | None:
        """The response that a hook has given, for the client; None without one."""
        sent = self._sent
        if sent.answer is None:
            return None
        face, kind = sent.face, "application/json"
        if sent.stream:
            kind = "text/event-stream"
            encoder = face.encoder(sent.request)
            body = b"".join([encoder.feed(event) for event in unfold(sent.answer)])
        else:
            body = face.encode_response(sent.answer, sent.request)
        headers = [("content-type", kind), ("content-length", str(len(body)))]
        return BufferedResponse(200, headers, body)

    def chat_dialect(self) -> Dialect | None:
        """The API in which a chat response can be decoded and encoded; None if that is not
        known.
        """
        face = self._known
        if not self._sent.operation.chat or not isinstance(face, Dialect):
            return None
        try:
            _ = self._sent.request
        except APIError:  # the provider will answer with the error of its API
            return None
        return face


class ProxyHooks:
    """The hooks of a proxy. `unparsed`: whether responses of unknown formats are checked as a
    whole, or refused.
    """

    def __init__(self, chain: HookChain, unparsed: Unparsed) -> None:
        if unparsed not in ("check", "refuse"):
            raise ConfigurationError(
                f"PassthroughProxy: unparsed must be 'check' or 'refuse', not {unparsed!r}."
            )
        self.chain = chain
        self.unparsed = unparsed

    async def before(self, request: ProxyRequest, body: bytes) -> ProxiedCall:
        """Run the hooks before a request. Raises APIError if it is refused."""
        call = proxied_call(request, body)
        await self.chain.run_before(call)
        if self.unparsed == "refuse" and call.chat_dialect() is None and self.chain.filters(call):
            raise unchecked_response_error(f"The response to {request.method} {call.operation}")
        return call

    async def guarded(
        self,
        answer: UpstreamResponse,
        call: ProxiedCall,
        method: str,
        *,
        monitor: RequestMonitor,
        observe: Callable[[bytes], None],
        on_failure: Callable[[APIError], None],
    ) -> UpstreamResponse:
        """The response as the filters release it. Raises APIError if they refuse it."""
        filters = self.chain.filters(call)
        if not filters or method == "HEAD" or answer.status in _BODILESS:
            return answer
        dialect = call.chat_dialect()
        if dialect is not None and answer.status == 200 and _decodable(answer, call):
            guarded = GuardedResponse(
                answer,
                call.to_gateway_request(),
                dialect,
                filters,
                monitor=monitor,
                observe=observe,
                on_failure=on_failure,
            )
            return await guarded.start()
        return await checked_response(answer, filters, monitor=monitor, observe=observe)

    async def checked_error(self, error: APIError, call: ProxiedCall) -> APIError:
        """The error of the upstream, with its texts as the filters release them."""
        filters = self.chain.filters(call)
        return await checked_error(filters, error) if filters else error


def _decodable(answer: UpstreamResponse, call: ProxiedCall) -> bool:
    """Whether the format of a chat response is one that the dialect decodes and encodes.

    (Google streams a JSON array to clients that do not request events.)
    """
    return (
        not call.stream
        or media_type(header(answer.headers, "content-type") or "") == "text/event-stream"
    )


def proxied_call(request: ProxyRequest, body: bytes) -> ProxiedCall:
    """The call that hooks see of a request."""
    provider, route = request.target.provider, request.route
    found = find_operation(provider, request.method, route.path) if provider is not None else None
    known, operation = found if found is not None else (None, None)
    fields, stream = _fields(body), False
    model = _model(fields) or route.model
    if known is not None and operation is not None:
        try:
            head = known.summarize(operation, body)
            model, stream = head.model, head.stream
        except APIError:
            known = None
    if known is None or operation is None:
        operation = Operation(route.operation, route.path, model=route.model)
    sent = GatewayRequest(
        known if known is not None else request.target.dialect,
        operation,
        model=model,
        stream=stream,
        body=body,
        fields=fields,
        query=request.query,
        content_type=request.content_type,
        principal=request.principal,
        request_id=request_id(request.scope),
    )
    return ProxiedCall(sent, request.scope, known)


def _fields(body: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}


def _model(fields: Mapping[str, msgspec.Raw]) -> str:
    raw = fields.get("model")
    if raw is None:
        return ""
    value: Any = msgspec.json.decode(raw)
    return value if isinstance(value, str) else ""
