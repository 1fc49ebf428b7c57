"""Files and batches of vendors below a shim, relayed to the provider that holds them. Theory of
operation.

Batches belong to an account of one vendor, and so do the files that they read and write: there is
nothing to translate. A request for one is forwarded unchanged by a `PassthroughProxy`, streamed in
both directions, with the key that made the resource.

*The provider.* Several may have the client's API. The one that holds a resource named by the path
or the body is known from its creation; a new file goes to the provider that the request names
(`aiproxy-provider`), or to the first of the router; a new batch to where its file is, or to the
first provider of the models that it names.

*The owner.* All callers share the vendor's account, so the proxy records the resources that a
caller creates (`asgi_aiproxy.keys.resource_records`). Of others the caller gets a 404, and of lists
its own items. Here ids without a record are refused as well: what is not created through this app
is of no caller.

*Batches* are noted when they are created, and settled and recorded by `open_batches`.

*Calls.* A chat request may name files, too (`find_key`): it goes to the provider and the key that
hold them, and gets a 404 for those of others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from msgspec.structs import replace

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import Message, Receive, Scope, Send
from asgi_aiproxy._control_headers import CONTROL_HEADERS, PROVIDER
from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.batch_budgets import (
    CallReader,
    ResultReader,
    Used,
    call_in,
    unreadable_batch_error,
)
from asgi_aiproxy.credentials import caller_key, with_key_header
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY, BatchAdmission
from asgi_aiproxy.exchange.error_mapping import model_not_allowed_error
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys.resource_records import ResourceOwnership, ResourceRecords
from asgi_aiproxy.open_batches import BatchWatch, OpenBatch, OpenBatches, batch_cost
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.providers.base import Provider, Router
from asgi_aiproxy.providers.resource_references import references
from asgi_aiproxy.providers.vendor_resources import RESOURCE_APIS, ResourceAPI
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.usage.recorder import Recorder, discard

if TYPE_CHECKING:
    from asgi_aiproxy.passthrough import PassthroughProxy
    from asgi_aiproxy.prices import SentRequest

_MAX_BODY = 64 * 1024 * 1024  # of a request that creates a batch: Anthropic's holds its calls
# A part of the results would be all that is counted; and a response is read along.
_NOT_FORWARDED = frozenset({b"accept-encoding", b"range", b"if-range"})
_BODY = frozenset({b"content-length", b"content-type", b"transfer-encoding"})
# What follows the id of a resource in a path that returns it, and not the content of a file.
_IS_RESOURCE = re.compile(r"cancel|complete|parts")
_NAMED = {name.encode(): CONTROL_HEADERS.get(name, name) for name in CONTROL_HEADERS}


class VendorResources:
    """Serves files and batches of the vendors behind a router.

    Arguments:

    - `router`: names the providers.
    - `faces`: the client APIs that are served.
    - `options`: further arguments of `PassthroughProxy`.
    - `allow_client_keys`: callers may use their own key, whose resources are all theirs.
    - `ownership`: which resources callers may use.
    - `recorder`: gets the usage records of batches; `receipts` has the prices if no `Quota` has.
    - `clock`: Unix time in seconds.
    """

    def __init__(
        self,
        router: Router,
        faces: Sequence[InboundDialect],
        options: Mapping[str, Any],
        *,
        allow_client_keys: bool = False,
        ownership: ResourceOwnership | None = None,
        recorder: Recorder | None = None,
        receipts: Receipts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        recorder = recorder if recorder is not None else Recorder(discard)
        cost = partial(batch_cost, receipts if receipts is not None else Receipts())
        self.open = OpenBatches(recorder, self._fetch, cost, clock)
        self._router = router
        self._faces = faces
        self._ownership = ownership if ownership is not None else ResourceOwnership()
        strict = self._ownership
        if strict.check == "recorded":  # files and batches are created through this app
            strict = dataclasses.replace(strict, check="strict")
        self._options = {
            **options,
            "allow_client_keys": allow_client_keys,
            "ownership": strict,
        }
        self._allow_client_keys = allow_client_keys
        self._proxies: dict[str, PassthroughProxy] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request for a resource; returns False for any other."""
        found = self._find(scope)
        if found is None:
            return False
        face, api, parts = found
        try:
            await self._relay(scope, receive, send, api, parts)
        except APIError as error:
            await send_error(scope, receive, send, face, error)
        except StoreUnavailableError:
            message = "Files and batches are not available at the moment; try again."
            failure = APIError(ErrorKind.OVERLOADED, message, retry_after=1.0)
            await send_error(scope, receive, send, face, failure)
        return True

    def _find(self, scope: Scope) -> tuple[InboundDialect, ResourceAPI, list[str]] | None:
        """The client's API and the parts of the path below a collection of resources."""
        path = _asgi.local_path(scope) or ""
        sent = {name for name, _ in scope["headers"]}
        faces = sorted(self._faces, key=lambda face: face.client_headers.isdisjoint(sent))
        for face in faces:
            api = RESOURCE_APIS.get(face.name)
            below = re.match(api.paths, path) if api is not None else None
            if api is not None and below is not None:
                return face, api, [unquote(part) for part in path[below.end() :].split("/") if part]
        return None

    async def _relay(
        self, scope: Scope, receive: Receive, send: Send, api: ResourceAPI, parts: list[str]
    ) -> None:
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        own_key = self._allow_client_keys and bool(caller_key(scope))
        path = (_asgi.local_path(scope) or "").rstrip("/")
        body: dict[str, Any] = {}
        if scope["method"] == "POST" and re.search(api.batches, path):
            data = await _asgi.read_body(scope, receive, _MAX_BODY)
            body, receive = _object(data), _replay(data, receive)
        named = [*parts[:1], *(str(body[name]) for name in api.references if body.get(name))]
        headers = _asgi.headers(scope, _NAMED)
        candidates = self._candidates(api, principal, headers.get(PROVIDER, ""), body)
        holder = await self._holder(candidates, named) if named and not own_key else None
        provider = candidates[0] if holder is None else holder[0]
        sent = [pair for pair in scope["headers"] if pair[0] not in _NOT_FORWARDED]
        scope = {**scope, "headers": sent}
        proxy = await self._proxy(provider)
        batches: BatchAdmission | None = getattr(scope.get(GATE_KEY), "batches", None)
        batches = None if own_key else batches
        store = self._batch_store(provider, batches)
        self.open.use(store, batches)
        if parts[1:] and not _IS_RESOURCE.fullmatch(parts[-1]):  # the content of a file
            if scope["method"] == "GET" and not own_key:
                send = await self._settling(store, batches, provider, parts[0], send)
            await proxy(scope, receive, send)
            return
        if own_key or (not parts and not body):
            await proxy(scope, receive, send)
            return
        made: OpenBatch | None = None
        if body:
            receipt, checked = await self._check_calls(proxy, scope, provider, api, body, batches)
            made = _new_batch(scope, api, provider, path, receipt)
            scope = {**scope, **checked}
        watch = BatchWatch(send, self.open, store, provider.name, admission=batches, made=made)
        try:
            await proxy(scope, receive, watch)
        finally:
            await watch.aclose()

    async def _check_calls(
        self,
        proxy: PassthroughProxy,
        scope: Scope,
        provider: Provider,
        api: ResourceAPI,
        body: Mapping[str, Any],
        batches: BatchAdmission | None,
    ) -> tuple[bytes, dict[str, Any]]:
        """Check the models of a batch and charge its budgets.

        Returns the receipt, and what the proxy gets in the scope: if models and cost are checked
        here, it checks nothing, as it cannot read them in a file. Raises APIError.
        """
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        receipt = batches.receipt() if batches is not None else b""
        limited = batches is not None and batches.limited
        if not limited and not principal.models:
            return receipt, {}
        calls = await self._calls(proxy, scope, provider, api, body)
        for model in {call.model for call in calls}:
            if not principal.may_use(model):
                raise model_not_allowed_error(model)
        if batches is not None and limited:
            receipt = await batches.charge(calls)
        anyone = dataclasses.replace(principal, models=())
        return receipt, {GATE_KEY: None, SCOPE_KEY: anyone}

    async def _calls(
        self,
        proxy: PassthroughProxy,
        scope: Scope,
        provider: Provider,
        api: ResourceAPI,
        body: Mapping[str, Any],
    ) -> list[SentRequest]:
        """The calls of a batch: those in its request, or in the file that it names."""
        path = str(body.get("endpoint") or api.call_path)
        if not api.references:
            calls = body.get("requests")
            given = calls if isinstance(calls, list) else []
            return [call_in(provider.name, path, call) for call in given]
        file = quote(str(body.get(api.references[0]) or ""), safe="")
        where = scope["path"].rstrip("/")[: -len("/batches")] + f"/files/{file}/content"
        reader = CallReader(provider.name, path)
        reading = {**scope, "method": "GET", "path": where, "raw_path": where.encode()}
        reading |= {GATE_KEY: None, "headers": [h for h in scope["headers"] if h[0] not in _BODY]}
        await proxy(reading, _replay(b"", _never), reader)
        if reader.error is not None:
            raise reader.error
        if not reader.complete:
            raise unreadable_batch_error()
        return reader.calls

    async def _settling(
        self, store: Store, batches: BatchAdmission | None, provider: Provider, id: str, send: Send
    ) -> Send:
        """A `send` that settles the batch whose results it passes on, if they are results."""
        batch = await self.open.find(store, provider.name, id)
        if batch is None:
            return send  # it is settled, or this is another file
        opened = batch

        async def ended(used: Used) -> None:
            await self.open.settle(store, opened, used, batches)

        return ResultReader(send, provider.name, ended)

    async def _fetch(self, batch: OpenBatch, path: str, send: Send) -> None:
        """Read from the provider of a batch, as its caller and with its key."""
        api = RESOURCE_APIS[batch.face]
        provider = self._candidates(api, ANONYMOUS, batch.provider, {})[0]
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1"}
        scope |= {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"scheme": "http", "root_path": "", "client": None, "server": None}
        scope |= {"headers": with_key_header([], batch.key_id) if batch.key_id else []}
        scope[SCOPE_KEY] = Principal(batch.principal, account=batch.account)
        await (await self._proxy(provider))(scope, _replay(b"", _never), send)

    def _batch_store(self, provider: Provider, batches: BatchAdmission | None) -> Store:
        """Where the open batches of a provider are: with the budgets, or with its keys."""
        table = provider.keys.table if provider.keys is not None else None
        store = table.store if table is not None else self._ownership.store
        store = batches.store if batches is not None else store
        return store if store is not None else self._memory

    @cached_property
    def _memory(self) -> Store:
        from asgi_aiproxy.stores import MemoryStore

        return MemoryStore()

    def _candidates(
        self, api: ResourceAPI, principal: Principal, name: str, body: Mapping[str, Any]
    ) -> list[Provider]:
        """The providers with this API that the caller may use; the likeliest first."""
        models = [*_models(body), *self._router.models()]
        targets = [target for model in models for target in self._router.targets(model, name)]
        offers = self._router.model_offers() if hasattr(self._router, "model_offers") else ()
        providers = [target.provider for target in targets] + [o.provider for o in offers]
        found = {
            provider.name: provider
            for provider in reversed(providers)
            if provider.dialect.name in api.dialects
            and principal.may_use_provider(provider.name)
            and name in ("", provider.name)
        }
        if not found:
            raise APIError(
                ErrorKind.NOT_FOUND,
                "No provider of this gateway has this API"
                + (f" and is named {name!r}." if name else "."),
                code="unsupported_operation",
            )
        return list(reversed(found.values()))

    async def _proxy(self, provider: Provider) -> PassthroughProxy:
        proxy = self._proxies.get(provider.name)
        if proxy is None:
            from asgi_aiproxy.passthrough import PassthroughProxy

            every = {path for each in RESOURCE_APIS.values() for path in each.opened}
            proxy = PassthroughProxy(provider, paths=sorted(every), **self._options)
            self._proxies[provider.name] = await proxy.__aenter__()
        return proxy

    async def aclose(self) -> None:
        """Write what is still to be recorded."""
        await self.open.aclose()
        proxies, self._proxies = self._proxies, {}
        for proxy in proxies.values():
            await proxy.__aexit__()

    async def find_key(self, call: GatewayRequest) -> GatewayRequest:
        """The call, at the provider and the key that hold the resources that its body names.

        Raises APIError (404) if the caller may not use one of them.
        """
        if call.own_key:
            return call
        from asgi_aiproxy.passthrough.resource_tracking import owner_of, usable_key

        named = await _asgi.off_loop(len(call.body), references, call.body)
        targets = self._router.targets(call.model, call.provider) if named else ()
        found = await self._holder([target.provider for target in targets], named)
        if found is None:
            return call
        provider, records = found
        key_id = await usable_key(records, self._ownership, owner_of(call.principal), named)
        if not key_id or provider.keys is None or key_id not in provider.keys.keys:
            return call
        return replace(call, provider=provider.name, key_id=call.key_id or key_id)

    async def _holder(
        self, candidates: Sequence[Provider], named: Iterable[str]
    ) -> tuple[Provider, ResourceRecords] | None:
        """The provider that holds resources, else the first one with keys, and its records."""
        found = None
        for provider in candidates:
            records = (await self._proxy(provider)).resources
            if records is not None and await records.key_of(named):
                return provider, records
            if records is not None and found is None:
                found = provider, records
        return found


def _models(body: Mapping[str, Any]) -> list[str]:
    """The models that the calls of a batch name."""
    calls = body.get("requests")
    params = (
        [call.get("params") for call in calls if isinstance(call, dict)]
        if isinstance(calls, list)
        else []
    )
    named = (each.get("model") for each in params if isinstance(each, dict))
    return list(dict.fromkeys(name for name in named if isinstance(name, str)))


def _new_batch(
    scope: Scope, api: ResourceAPI, provider: Provider, path: str, receipt: bytes
) -> OpenBatch:
    """The batch that a request creates, without its id."""
    principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
    return OpenBatch(
        provider=provider.name,
        id="",
        face=next(name for name, each in RESOURCE_APIS.items() if each is api),
        path=path,
        principal=principal.id,
        account=principal.account,
        group=principal.group,
        request_id=request_id(scope),
        receipt=receipt.decode(),
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = _json.loads(data) if data else {}
    except _json.NotJSONError:
        return {}
    return found if isinstance(found, dict) else {}


def _replay(data: bytes, receive: Receive) -> Receive:
    """A `receive` that returns a body that was read, and then what follows it."""
    waiting: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]

    async def replaying() -> Message:
        return waiting.pop() if waiting else await receive()

    return replaying


async def _never() -> Message:
    """Wait until the task is cancelled: the gateway itself does not disconnect."""
    await asyncio.get_running_loop().create_future()
    return {"type": "http.disconnect"}
