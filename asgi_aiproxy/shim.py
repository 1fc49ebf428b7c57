"""Shims: ASGI apps that serve AI APIs and send the requests to providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError, RequestMonitor, TimerRegistry
from asgi_aiproxy._control_headers import KEY, PROVIDER, SESSION
from asgi_aiproxy._headers import content_codings
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.credentials import caller_key
from asgi_aiproxy.dialects import NEUTRAL
from asgi_aiproxy.dialects.base import (
    REFERRING_OPERATIONS,
    RESPONSES,
    InboundDialect,
    Operation,
)
from asgi_aiproxy.errors import (
    AIProxyError,
    APIError,
    ConfigurationError,
    internal_error,
    require_int_at_least,
)
from asgi_aiproxy.exchange.admission import GATE_KEY, AdmissionControl, must_inspect
from asgi_aiproxy.exchange.attribution import NO_LABELS, Attribution, attribution_for
from asgi_aiproxy.exchange.client_apis import (
    forwarded_headers,
    forwarded_query,
    header_names,
    imported_faces,
)
from asgi_aiproxy.exchange.continuation import CALL_MARK, MEMBER, as_continuations
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.exchange.explain import ExplainsCalls
from asgi_aiproxy.exchange.json_array import JSONArraySend, wants_sse
from asgi_aiproxy.exchange.operation_matcher import OperationMatcher
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.exchange.relay import Relay
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.responses import SSEResponder, send_whole, streams_events
from asgi_aiproxy.hooks.base import BeforeHook, Hook
from asgi_aiproxy.hooks.chain import HookChain, as_hooks
from asgi_aiproxy.inspection import inspect_fields
from asgi_aiproxy.keys.encryption import SecretCipher
from asgi_aiproxy.operations import AnyClientOperation
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.providers.resource_references import may_refer
from asgi_aiproxy.request_limits import RequestLimits
from asgi_aiproxy.shim_services import ShimServices
from asgi_aiproxy.typed_methods import TypedCalls
from asgi_aiproxy.upstream import (
    Timeouts,
    Transport,
    check_timeouts,
    check_transport,
    default_transport,
)
from asgi_aiproxy.usage.recorder import Recorder, UsageSink, discard

if TYPE_CHECKING:
    from asgi_aiproxy.keys.resource_records import ResourceOwnership
    from asgi_aiproxy.model_list import FactsSource
    from asgi_aiproxy.multipart_forwarder import MultipartForwarder
    from asgi_aiproxy.responses_state import ResponseState
    from asgi_aiproxy.responses_state.memory import ConnectionMemory

MiB = 1024 * 1024
_JSON = "application/json"


class Shim(TypedCalls, ExplainsCalls):
    """An ASGI app that serves one or more AI APIs and has their requests answered by providers.

    `router` returns the targets for a model; a provider is also a router. `record` is called with
    one `UsageRecord` for each exchange. `max_body` limits JSON bodies, `max_upload` multipart
    bodies, in bytes. After `keepalive_seconds` without data, a waiting stream is sent a keep-alive.
    `strict` refuses requests with members that a provider does not support, which are otherwise
    listed in the header `aiproxy-ignored`. With `allow_client_keys` callers may bring their own key
    for a provider: in `aiproxy-provider-key`, or as their API key if no `Authenticate` is outside.
    `limits` apply to requests that are translated (see `RequestLimits`). `response_state` stores
    what requests of the Responses API may refer to. With `websockets` that API is also served over
    WebSockets, which are closed after `websocket_idle` seconds without a message. `hooks` see,
    change, answer or refuse calls, in this order (see `asgi_aiproxy.hooks`). `attribution` finds
    the session and the tags of calls for their records. `receipts` says where an answer shows what
    it cost; by default in the header `aiproxy-cost`, if a `Quota` prices it. `apis` are further
    APIs that are served: dialects, or operations (see `asgi_aiproxy.operations`). `conversations`
    lets clients continue conversations that a provider keeps: with a `Sealer` in all workers that
    have its key, with True in this process. `prices` are shown in the list of models. `ownership`
    says which files and other resources of providers callers may use (see `ResourceOwnership`).

    `chat`, `stream` and `embed` are calls from the host's own code (see `InProcess`).

    Works with and without `lifespan`; `async with` or `lifespan(...)` opens and closes it properly.
    """

    # The APIs that it serves: dialects, or their names in `asgi_aiproxy.dialects` and `operations`.
    faces: ClassVar[tuple[InboundDialect | str, ...]]
    handles_admission: ClassVar[bool] = True  # see `asgi_aiproxy.exchange.admission`

    def __init__(
        self,
        router: Router,
        *,
        transport: Transport | None = None,
        record: UsageSink = discard,
        timeouts: Timeouts | None = None,
        attempts: int = 3,
        backoff: float = 0.25,
        max_body: int = 32 * MiB,
        max_upload: int = 512 * MiB,
        keepalive_seconds: float = 15.0,
        strict: bool = False,
        allow_client_keys: bool = False,
        limits: RequestLimits | None = None,
        response_state: ResponseState | None = None,
        websockets: bool = True,
        websocket_idle: float = 600.0,
        hooks: Sequence[Hook | BeforeHook] = (),
        attribution: Attribution | None = None,
        receipts: Receipts | None = None,
        apis: Sequence[InboundDialect | AnyClientOperation] = (),
        conversations: SecretCipher | bool = True,
        prices: FactsSource | None = None,
        ownership: ResourceOwnership | None = None,
    ) -> None:
        if not hasattr(router, "targets"):
            raise ConfigurationError(
                f"{type(self).__name__} takes a provider with keys, as OPENAI.using(...), or a "
                f"ProviderRouter, not {type(router).__name__}."
            )
        check_transport(transport)
        check_timeouts(timeouts)
        require_int_at_least(max_body=max_body, max_upload=max_upload, attempts=attempts)
        self._own_transport = default_transport(timeouts=timeouts) if transport is None else None
        self._recorder = Recorder(record)
        self._timers = TimerRegistry()
        self._relay = Relay(
            router,
            transport=transport if self._own_transport is None else self._own_transport,  # type: ignore[arg-type]
            recorder=self._recorder,
            timeouts=timeouts,
            attempts=attempts,
            backoff=backoff,
            strict=strict,
            limits=limits,
            receipts=receipts,
            continuations=as_continuations(conversations),
        )
        waits = timeouts if timeouts is not None else Timeouts()
        self._total, self._body = waits.total, waits.body
        self._max_body = max_body
        self._max_upload = max_upload
        self._keepalive = keepalive_seconds
        self._allow_client_keys = allow_client_keys
        if not websocket_idle > 0:
            raise ConfigurationError(f"websocket_idle must be > 0 seconds, got {websocket_idle!r}.")
        self._websockets = websockets
        faces = imported_faces(self.faces, apis)
        self._matcher = OperationMatcher(faces)
        self._services = ShimServices(
            self._relay,
            faces,
            prices=prices,
            response_state=response_state,
            max_body=max_body,
            websocket_idle=websocket_idle,
            allow_client_keys=allow_client_keys,
            ownership=ownership,
            record=record,
            timeouts=timeouts,
            hooks=hooks,
            attribution=attribution,
        )
        self._hooks = as_hooks(hooks)
        recorded = record is not discard or self._hooks is not None
        self._attribution = attribution_for(attribution, recorded=recorded)
        more = () if self._attribution is None else self._attribution.headers
        self._header_names = {face: header_names(face, more) for face in (*faces, NEUTRAL)}
        self._users = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._relay.router!r})"

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if self._users == 0:
            if self._hooks is not None:
                await self._hooks.drain()
            await self._recorder.drain()
            await self._services.aclose()
            if self._own_transport is not None:
                await self._own_transport.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        face: InboundDialect | None = None
        try:
            try:
                face, operation = self._matcher.match(scope)
                if operation.body == "none":
                    face, operation = self._matcher.match_client(scope, face, operation)
                principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
                if operation.body == "none":
                    await self._services.send_models(scope, send, face, operation, principal)
                else:
                    await self._relay_call(scope, receive, send, face, operation, principal)
            except APIError as error:
                if face is None and await self._services.serve_resource(scope, receive, send):
                    return
                await send_error(scope, receive, send, face or self._matcher.closest(scope), error)
            except AIProxyError:
                raise
            except Exception:
                face = face or self._matcher.closest(scope)
                await send_error(scope, receive, send, face, internal_error())
                raise
        except ClientGoneError:
            pass  # the client has disconnected

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        elif scope["type"] == "websocket":
            # (Also for unknown paths: over HTTP the client is sent the error.)
            face = self._matcher.faces[0]
            with suppress(APIError):
                face, operation = self._matcher.match({**scope, "method": "POST"})
                if operation.name == RESPONSES and self._websockets:
                    relay = partial(self._relay_call, face=face, operation=operation)
                    await self._services.responses.serve_websocket(
                        scope, receive, send, face, relay
                    )
                    return
            await send_error(scope, receive, send, face, _asgi.no_websocket())

    def matches(self, scope: Scope) -> bool:
        """Return whether a request is for one of the operations of this app."""
        operation = self._matcher.find(scope)
        return operation is not None and self._services.responses.serves(operation)

    # calls

    async def _relay_call(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        face: InboundDialect,
        operation: Operation,
        principal: Principal,
        memory: ConnectionMemory | None = None,
        *,
        generate: bool = True,
    ) -> None:
        """Read a request, and have it answered by a provider.

        `memory` is that of its WebSocket. `generate` is False if the request is only to be
        remembered there.
        """
        headers = _asgi.headers(scope, self._header_names[face])
        coding = headers.get("content-encoding")
        codings = content_codings(coding) if coding else []
        form = operation.body == "form" and not headers.get("content-type", "").startswith(_JSON)
        if codings:
            from asgi_aiproxy.upstream.request_encoding import check_codings

            check_codings(codings, supported=() if form else None)
        upload: MultipartForwarder | None = None
        if form:
            from asgi_aiproxy.multipart_forwarder import MultipartForwarder

            upload = MultipartForwarder(scope, receive, self._max_upload, self._body)
            receive = upload.receive
        try:
            if upload is not None:
                call = await self._read_upload(scope, upload, face, operation, principal, headers)
            else:
                length = _asgi.length_in_bytes(headers.get("content-length"))
                body = await _asgi.read_announced_body(receive, self._max_body, length, self._body)
                if codings:
                    from asgi_aiproxy.upstream.request_encoding import decode_request_body

                    body = await decode_request_body(codings, body, self._max_body)
                call = await self._read_request(scope, body, face, operation, principal, headers)
            if call.stream and operation.name == "generateContent" and not wants_sse(scope):
                send = JSONArraySend(send)
            capture = None
            if operation.resource or operation.name in REFERRING_OPERATIONS:
                prepared = await self._services.responses.prepare(
                    scope, send, call, self._relay.router, memory, generate=generate
                )
                if prepared is None:
                    return  # it was answered
                call, capture = prepared
            if self._hooks is not None:  # they see what is sent, with the history that it refers to
                call = await self._run_hooks(self._hooks, call, scope, receive)
            monitor = RequestMonitor(self._timers.for_running_loop(), receive)
            exchange = Exchange(self._relay, call, monitor)
            if capture is not None:
                send = capture(send, exchange)
            keepalive = self._keepalive if memory is None else 0.0
            try:
                with monitor:
                    router = self._relay.router
                    if call.stream if operation.chat else streams_events(call, router):
                        await SSEResponder(
                            send, face, exchange, total=self._total, keepalive=keepalive
                        ).run()
                    else:
                        await send_whole(send, exchange, total=self._total)
            finally:
                await exchange.close()
        finally:
            if upload is not None:
                upload.close()

    async def _run_hooks(
        self, hooks: HookChain, call: GatewayRequest, scope: Scope, receive: Receive
    ) -> GatewayRequest:
        """Run the hooks before a call; a call that they refuse has a usage record, too."""
        call, refusal = await hooks.before(call, scope)
        if refusal is not None:
            monitor = RequestMonitor(self._timers.for_running_loop(), receive)
            exchange = Exchange(self._relay, msgspec.structs.replace(call, gate=None), monitor)
            exchange.fail(refusal)
            await exchange.close()
            raise refusal
        return call

    async def _read_request(
        self,
        scope: Scope,
        body: bytes,
        face: InboundDialect,
        operation: Operation,
        principal: Principal,
        headers: Mapping[str, str],
    ) -> GatewayRequest:
        """Return the request with a JSON body. Raises APIError."""
        head = face.summarize(operation, body)
        gate: AdmissionControl | None = scope.get(GATE_KEY)
        others: tuple[str, ...] = ()
        if must_inspect(principal, gate):
            found = await _asgi.off_loop(len(body), inspect_fields, head.fields)
            others = found.beside(head.model)
        call = GatewayRequest(
            face,
            operation,
            model=head.model,
            stream=head.stream,
            usage_wanted=head.usage_wanted,
            body=body,
            fields=head.fields,
            others=others,
            headers=forwarded_headers(headers, face),
            query=forwarded_query(scope, face) if scope.get("query_string") else "",
            principal=principal,
            provider=head.provider or headers.get(PROVIDER, ""),
            key_id=headers.get(KEY, ""),
            own_key=caller_key(scope) if self._allow_client_keys else "",
            affinity=headers.get(SESSION, ""),
            gate=gate,
            request_id=request_id(scope, headers),
            labels=(
                self._attribution.labels(headers, head.fields, principal)
                if self._attribution is not None
                else NO_LABELS
            ),
        )
        if may_refer(body):
            call = await self._services.find_key(call)
        if MEMBER in head.fields or body.find(CALL_MARK) >= 0:
            return await self._relay.continuations.open(call)
        return call

    async def _read_upload(
        self,
        scope: Scope,
        upload: MultipartForwarder,
        face: InboundDialect,
        operation: Operation,
        principal: Principal,
        headers: Mapping[str, str],
    ) -> GatewayRequest:
        """Return the request with a form, which is read up to its model. Raises APIError."""
        from asgi_aiproxy.multipart_forwarder import read_form

        model = await upload.open(operation.default_model)
        provider = headers.get(PROVIDER, "")
        return GatewayRequest(
            face,
            operation,
            model=model,
            upload=upload.stream,
            form=await read_form(
                upload, self._relay.router, operation, model, provider, always=bool(self._hooks)
            ),
            length=_asgi.length_in_bytes(headers.get("content-length")) or 0,
            content_type=upload.content_type,
            headers=forwarded_headers(headers, face),
            principal=principal,
            provider=provider,
            key_id=headers.get(KEY, ""),
            own_key=caller_key(scope) if self._allow_client_keys else "",
            gate=scope.get(GATE_KEY),
            request_id=request_id(scope, headers),
            labels=(
                self._attribution.labels(headers, {}, principal)
                if self._attribution is not None
                else NO_LABELS
            ),
        )


class AIShim(Shim):
    """Serves the APIs of OpenAI, Anthropic and Google below one mount.

    Each client takes the base URL that its SDK expects: the mount plus `/v1` for OpenAI's, the
    mount itself for Anthropic's and Google's.
    """

    faces = (
        "OPENAI_CHAT",
        "OPENAI_COMPLETIONS",
        "OPENAI_RESPONSES",
        "OPENAI_COMPACTION",
        "ANTHROPIC_MESSAGES",
        "GEMINI_CONTENT",
        "RERANK",
    )


class OpenAIShim(Shim):
    """Serves OpenAI's API: chat completions, Responses, embeddings, images, audio, moderations, and
    beside it `/v1/rerank`.

    Clients take its mount plus `/v1` as base URL.

    ::

        app.mount("/ai", OpenAIShim(ANTHROPIC.using("sk-ant-...")))
    """

    faces = (
        "OPENAI_CHAT",
        "OPENAI_COMPLETIONS",
        "OPENAI_RESPONSES",
        "OPENAI_COMPACTION",
        "RERANK",
    )


class AnthropicShim(Shim):
    """Serves Anthropic's API; clients take its mount as base URL."""

    faces = ("ANTHROPIC_MESSAGES",)


class GeminiShim(Shim):
    """Serves Google's Gemini API; clients take its mount as base URL."""

    faces = ("GEMINI_CONTENT",)
