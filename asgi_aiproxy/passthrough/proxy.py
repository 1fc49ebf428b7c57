"""`PassthroughProxy`: forwards requests unchanged, with the pool's key instead of the caller's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._request_id import named, request_id
from asgi_aiproxy.errors import (
    AIProxyError,
    APIError,
    ConfigurationError,
    ErrorKind,
    internal_error,
    require_int_at_least,
)
from asgi_aiproxy.exchange.attribution import Attribution, attribution_for
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.hooks.base import BeforeHook, Hook
from asgi_aiproxy.hooks.chain import as_hooks
from asgi_aiproxy.keys.resource_records import ResourceOwnership, ResourceRecords
from asgi_aiproxy.passthrough.context import NO_RECEIPTS, ProxyContext
from asgi_aiproxy.passthrough.exchange import Exchange
from asgi_aiproxy.passthrough.headers import AmbiguousFramingError, Forwarded
from asgi_aiproxy.passthrough.hooks import ProxyHooks, Unparsed
from asgi_aiproxy.passthrough.receipt_send import ReceiptSend
from asgi_aiproxy.passthrough.request import parse_request
from asgi_aiproxy.passthrough.routes import Routes
from asgi_aiproxy.passthrough.target import Paths, make_target, with_policy
from asgi_aiproxy.passthrough.websocket import WebSocketBridge
from asgi_aiproxy.passthrough.websocket_connect import WebSocketLimits
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.upstream import (
    Timeouts,
    Transport,
    check_timeouts,
    check_transport,
    default_transport,
)
from asgi_aiproxy.usage.recorder import Recorder, UsageSink, discard

MiB = 1024 * 1024
_SIGNED_BODY = "It must be read completely to be signed, so it cannot be longer."


class PassthroughProxy:
    """An ASGI app that forwards HTTP requests and WebSockets unchanged, streaming in both
    directions.

    ::

        app.mount("/openai", PassthroughProxy(OPENAI.using("sk-...")))  # a vendor's whole API
        app.mount("/app", PassthroughProxy("http://internal:9000"))     # any application

    Requests to a provider get a key of its pool. By default, the paths for inference and its
    resources are served; `paths` gives other patterns (`/files/**`, `GET /models/**`), or `"all"`,
    which includes account administration. Requests to a URL are all forwarded, with the caller's
    credential unless a middleware has used it (`Authenticate`, `InjectKey`).

    Bodies up to `max_replay` bytes are read before they are sent, so that they can be sent again
    with another key; longer ones are streamed, or refused if the provider's `auth` signs bodies
    (`SigV4`). `max_body` is the maximum body size (None: no limit), `max_inspected` that of callers
    that are restricted to models or have a budget (except for multipart forms, which are checked
    while they stream), and `max_message` that of WebSocket messages, all in bytes. `forwarded`
    controls the `x-forwarded-*` headers sent to an application: `set` replaces them, `append`
    appends to them, `keep` leaves them unchanged, `drop` removes them; `keep_host` sends the
    client's `host`. `allow_client_keys` lets callers use their own key for a provider. `record`
    gets one `UsageRecord` per exchange, with the session and the tags that `attribution` finds (in
    headers and in JSON bodies up to `max_replay`); with `receipts`, responses show what they cost
    (see `Receipts`; those that are not streamed are held for it, up to 256 KiB). `ca` is a PEM file
    that is trusted in addition to the system's certificates.

    `hooks` see, change, answer or refuse requests, in this order (see `asgi_aiproxy.hooks`);
    request bodies are then read completely, up to `max_inspected` bytes. `unparsed` says what
    happens, with guards, to responses of formats that the gateway does not decode: `check` holds
    them until they are complete and checks all of their texts, `refuse` refuses such requests.

    Callers that share the provider's keys do not share what they create with them: files, batches,
    stored responses and other resources of another account are answered with 404, and left out of
    lists. `ownership` changes that (see `ResourceOwnership`).

    It works with and without `lifespan`. If the upstream fails in the middle of a response, the app
    raises, so that the server closes the client's connection: a partial response never looks
    complete.
    """

    handles_admission: ClassVar[bool] = True  # see `asgi_aiproxy.exchange.admission`

    def __init__(
        self,
        target: Provider | str,
        *,
        paths: Paths | None = None,
        transport: Transport | None = None,
        record: UsageSink = discard,
        timeouts: Timeouts | None = None,
        max_body: int | None = None,
        max_replay: int = MiB,
        max_inspected: int = 64 * MiB,
        max_message: int = 16 * MiB,
        forwarded: Forwarded | None = None,
        keep_host: bool = False,
        allow_client_keys: bool = False,
        hooks: Sequence[Hook | BeforeHook] = (),
        unparsed: Unparsed = "check",
        ca: str | Path | bytes | None = None,
        attribution: Attribution | None = None,
        receipts: Receipts | None = None,
        ownership: ResourceOwnership | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._target = make_target(target, paths)
        check_transport(transport)
        check_timeouts(timeouts)
        require_int_at_least(max_message=max_message, max_inspected=max_inspected)
        require_int_at_least(
            0, max_replay=max_replay, max_body=max_body if max_body is not None else 0
        )
        if forwarded is not None:
            if forwarded not in ("set", "append", "keep", "drop"):
                raise ConfigurationError(
                    "PassthroughProxy: forwarded must be 'set', 'append', 'keep' or 'drop', "
                    f"not {forwarded!r}."
                )
            self._target = with_policy(self._target, forwarded=forwarded)
        limits = timeouts if timeouts is not None else Timeouts()
        self._owned = default_transport(timeouts=limits, ca=ca) if transport is None else None
        self._recorder = Recorder(record)
        whole_body_reason = _SIGNED_BODY if self._target.signs_bodies else ""
        if whole_body_reason and (max_body is None or max_body > max_replay):
            max_body = max_replay
        chain = as_hooks(hooks)
        attribution = attribution_for(
            attribution, recorded=record is not discard or chain is not None
        )
        if attribution is not None:
            self._target = with_policy(self._target, read=attribution.headers)
        owners = ownership if ownership is not None else ResourceOwnership()
        pool = self._target.provider.keys if self._target.provider is not None else None
        self.resources = pool.resource_records if pool is not None else None
        if pool is not None and owners.store is not None:
            self.resources = ResourceRecords(pool.name, lambda: owners.store)
        self._context = ProxyContext(
            transport=transport if self._owned is None else self._owned,  # type: ignore[arg-type]
            recorder=self._recorder,
            timeouts=limits,
            max_body=max_body,
            max_replay=max_replay,
            max_inspected=max_inspected,
            whole_body_reason=whole_body_reason,
            keep_host=keep_host,
            recorded=record is not discard or (receipts is not None and bool(receipts.prices)),
            receipts=receipts if receipts is not None else NO_RECEIPTS,
            attribution=attribution,
            clock=clock,
            hooks=ProxyHooks(chain, unparsed) if chain is not None else None,
            resources=self.resources,
            ownership=owners,
        )
        self._routes = Routes(self._target)
        self._sockets = WebSocketLimits(max_message=max_message, connect=limits.connect, ca=ca)
        self._allow_client_keys = allow_client_keys
        self._users = 0

    def __repr__(self) -> str:
        return f"PassthroughProxy({self._target.provider or self._target.name!r})"

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if self._users == 0:
            if self._context.hooks is not None:
                await self._context.hooks.chain.drain()
            await self._recorder.drain()
            if self._owned is not None:
                await self._owned.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] != "http":
            await self._pass_other_scope(scope, receive, send)
            return
        try:
            request = parse_request(
                scope, self._target, self._routes, allow_client_keys=self._allow_client_keys
            )
            upgrade = request.read_headers.get("upgrade")
            if upgrade and upgrade.strip().lower() == "websocket":
                await self._refuse_upgrade(scope, send)
                return
            exchange = Exchange(self._context, request)
            try:
                if self._context.receipts is not NO_RECEIPTS:
                    receipts, face = self._context.receipts, self._target.dialect
                    send = ReceiptSend(send, receipts, lambda: exchange.written, face)
                await exchange.run(receive, send)
            finally:
                await exchange.close()
        except ClientGoneError:
            pass  # the client has disconnected
        except APIError as error:
            last = isinstance(error, AmbiguousFramingError)
            await send_error(scope, receive, send, self._target.dialect, error, last=last)
        except AIProxyError:
            raise
        except Exception:
            await send_error(scope, receive, send, self._target.dialect, internal_error())
            raise

    async def _refuse_upgrade(self, scope: Scope, send: Send) -> None:
        """Refuse a WebSocket handshake that the server has passed on as plain HTTP."""
        error = APIError(ErrorKind.INVALID, "The server did not accept this WebSocket handshake.")
        headers = [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
        headers.append(named(request_id(scope)))
        await _asgi.send_response(send, 426, self._target.dialect.encode_error(error), headers)

    async def _pass_other_scope(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _asgi.serve_lifespan(self, receive, send)
        elif scope["type"] == "websocket":
            with suppress(ClientGoneError):
                await self._websocket(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = parse_request(
                scope, self._target, self._routes, allow_client_keys=self._allow_client_keys
            )
        except APIError as error:
            await send_error(scope, receive, send, self._target.dialect, error)
            return
        await WebSocketBridge(self._context, self._sockets, scope, receive, send).run(request)
