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

*Calls.* A chat request may name files, too (`find_key`): it goes to the provider and the key that
hold them, and gets a 404 for those of others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from msgspec.structs import replace

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import Message, Receive, Scope, Send
from asgi_aiproxy._control_headers import CONTROL_HEADERS, PROVIDER
from asgi_aiproxy.batch_budgets import (
    BatchWatch,
    CallReader,
    ResultReader,
    Used,
    call_in,
    unreadable_batch_error,
)
from asgi_aiproxy.credentials import caller_key
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY, BatchAdmission
from asgi_aiproxy.exchange.error_mapping import model_not_allowed_error
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys.resource_records import ResourceOwnership, ResourceRecords
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.providers.base import Provider, Router
from asgi_aiproxy.providers.resource_references import references
from asgi_aiproxy.providers.vendor_resources import RESOURCE_APIS, ResourceAPI
from asgi_aiproxy.stores.base import StoreUnavailableError

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
    """

    def __init__(
        self,
        router: Router,
        faces: Sequence[InboundDialect],
        options: Mapping[str, Any],
        *,
        allow_client_keys: bool = False,
        ownership: ResourceOwnership | None = None,
    ) -> None:
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
        if own_key or batches is None or not batches.limited:
            batches = None
        if parts[1:] and not _IS_RESOURCE.fullmatch(parts[-1]):  # the content of a file
            if batches is not None and scope["method"] == "GET":
                send = await self._settling(batches, provider, parts[0], send)
            await proxy(scope, receive, send)
            return
        receipt = b""
        if body and (batches is not None or principal.models):
            calls = await self._calls(proxy, scope, provider, api, body)
            for model in {call.model for call in calls}:
                if not principal.may_use(model):
                    raise model_not_allowed_error(model)
            receipt = await batches.charge(calls) if batches is not None else b""
            # (Its models and its cost are checked: the proxy cannot read them in a file.)
            anyone = dataclasses.replace(principal, models=())
            scope = {**scope, GATE_KEY: None, SCOPE_KEY: anyone}
        if batches is None or (not parts and not body):
            await proxy(scope, receive, send)
            return
        watch = BatchWatch(send, provider.name, batches, receipt)
        try:
            await proxy(scope, receive, watch)
        finally:
            await watch.aclose()

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
        self, batches: BatchAdmission, provider: Provider, id: str, send: Send
    ) -> Send:
        """A `send` that settles the batch whose results it passes on, if they are results."""
        name = f"{provider.name}:{id}"
        receipt = await batches.find(name)
        if receipt is None:
            return send
        head, _, charged = receipt.partition(b" ")
        batch = head.decode()
        if await batches.find(batch) is None:
            return send  # it is settled

        async def ended(used: Used) -> None:
            if await batches.find(batch) is not None:
                await batches.settle(batch, charged, used)

        return ResultReader(send, provider.name, ended)

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
