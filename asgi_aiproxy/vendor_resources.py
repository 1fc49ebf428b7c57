"""Files and batches of vendors below a shim, relayed to the provider that holds them. Theory of
operation.

Batches belong to an account of one vendor, and so do the files that they read and write: there is
nothing to translate. A request for one is forwarded unchanged by a `PassthroughProxy`, streamed in
both directions, with the key that made the resource.

*The provider.* Several may have the client's API. The one that holds a resource named by the path
or the body is known from its creation; a new file goes to the provider that the request names
(`aiproxy-provider`), or to the first of the router; a new batch to where its file is, or to the
first provider of the models that it names.

*The owner.* All callers share the vendor's account. So the resources that a caller creates are
remembered as those of its account, and of others it gets a 404; of lists it gets its own items.
Callers without an id are treated as one. What is remembered is kept in the store of the provider's
keys, for all workers, or else in this process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import Message, Receive, Scope, Send
from asgi_aiproxy._control_headers import CONTROL_HEADERS, KEY, PROVIDER
from asgi_aiproxy.batch_budgets import (
    CallReader,
    ResultReader,
    Used,
    call_in,
    ended_without_results,
    unreadable_batch_error,
)
from asgi_aiproxy.credentials import caller_key, with_key_header
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY, BatchAdmission
from asgi_aiproxy.exchange.error_mapping import model_not_allowed_error
from asgi_aiproxy.exchange.error_responses import send_error
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.providers.base import Provider, Router
from asgi_aiproxy.providers.vendor_resources import RESOURCE_APIS, ResourceAPI, resource_ids
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.stores.entries import ExpiringEntries

if TYPE_CHECKING:
    from asgi_aiproxy.passthrough import PassthroughProxy
    from asgi_aiproxy.prices import SentRequest

_KEPT_SECONDS = 400.0 * 86_400
_LOCAL_BYTES = 8 * 1024 * 1024  # of owners in this process
_MAX_BODY = 64 * 1024 * 1024  # of a request that creates a batch: Anthropic's holds its calls
_MAX_ANSWER = 16 * 1024 * 1024  # of a list, or of a resource
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
    - `store`: keeps what is remembered, in place of the store of the provider's keys.
    """

    def __init__(
        self,
        router: Router,
        faces: Sequence[InboundDialect],
        options: Mapping[str, Any],
        *,
        allow_client_keys: bool = False,
        store: Store | None = None,
    ) -> None:
        self._store = store
        self._router = router
        self._faces = faces
        self._options = {**options, "allow_client_keys": allow_client_keys}
        self._allow_client_keys = allow_client_keys
        self._proxies: dict[str, PassthroughProxy] = {}
        self._local = ExpiringEntries(_LOCAL_BYTES)

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
        owner = "" if own_key or not (principal.id or principal.account) else principal.tenant
        path = (_asgi.local_path(scope) or "").rstrip("/")
        body: dict[str, Any] = {}
        if scope["method"] == "POST" and re.search(api.batches, path):
            data = await _asgi.read_body(scope, receive, _MAX_BODY)
            body, receive = _object(data), _replay(data, receive)
        named = [*parts[:1], *(str(body[name]) for name in api.references if body.get(name))]
        headers = _asgi.headers(scope, _NAMED)
        candidates = self._candidates(api, principal, headers.get(PROVIDER, ""), body)
        provider, key_id = candidates[0], ""
        for id in named:
            known = await self._known(candidates, id)
            if known is not None:
                provider, key_id = known[0], known[2]
            if owner and (known is None or known[1] != owner):
                raise _not_found(id)
        sent = [pair for pair in scope["headers"] if pair[0] not in _NOT_FORWARDED]
        if key_id and not own_key:
            sent = with_key_header(sent, key_id)
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
        lists = not parts and scope["method"] == "GET"
        watch = _Watch(send, self, provider, owner, is_list=lists, batches=batches, receipt=receipt)
        try:
            await proxy(scope, receive, watch)
            watch.check()
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

    # the holder and the owner of a resource

    async def _known(
        self, candidates: Sequence[Provider], id: str
    ) -> tuple[Provider, str, str] | None:
        """The provider, the owner and the key of a resource; None if it is not known."""
        for provider in candidates:
            name, store = _entry(provider, id), self._store_of(provider)
            data = self._local.get(name, time.monotonic())
            if data is None and store is not None:
                data = await store.get_entry(name)
            if data is not None:
                owner, _, key_id = data.decode().partition(" ")
                return provider, owner, key_id
        return None

    def _store_of(self, provider: Provider) -> Store | None:
        if self._store is not None:
            return self._store
        table = provider.keys.table if provider.keys is not None else None
        return table.store if table is not None else None

    async def remember(
        self, provider: Provider, owner: str, key_id: str, resource: Mapping[str, Any]
    ) -> None:
        """Remember a resource, and the files that it names, as those of an owner and a key."""
        now, value = time.monotonic(), f"{owner} {key_id}".encode()
        for id in resource_ids(resource):
            if await self._known([provider], id) is not None:
                continue
            name, store = _entry(provider, id), self._store_of(provider)
            self._local.set(name, value, now + _KEPT_SECONDS, now)
            if store is not None:
                await store.set_entry(name, value, seconds=_KEPT_SECONDS)

    async def owned(self, provider: Provider, owner: str, items: list[Any]) -> list[Any]:
        """The items of a list that belong to an owner."""
        kept = []
        for item in items:
            id = item.get("id") if isinstance(item, dict) else None
            known = await self._known([provider], id) if isinstance(id, str) else None
            if known is not None and known[1] == owner:
                kept.append(item)
        return kept


class _Watch:
    """An ASGI `send` that reads resources along, and leaves a caller's own items in lists.

    Only JSON is read. A list is held until it is complete, if it must be changed; if it cannot be
    read, nothing is sent, and `check` raises APIError.
    """

    def __init__(
        self,
        send: Send,
        resources: VendorResources,
        provider: Provider,
        owner: str,
        *,
        is_list: bool,
        batches: BatchAdmission | None,
        receipt: bytes,
    ) -> None:
        self._batches = batches
        self._receipt = receipt  # of the batch that is created
        self._unreadable = False
        self._send = send
        self._resources = resources
        self._provider = provider
        self._owner = owner
        self._list = is_list and bool(owner)  # a list of which only a part may be sent
        self._start: Message | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._reads = False

    async def __call__(self, message: Message) -> None:
        if self._unreadable:
            return
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._reads = message["status"] < 300 and kind.startswith(b"application/json")
            self._unreadable = self._list and message["status"] < 300 and not self._reads
            self._start = message
            if not self._reads and not self._unreadable:
                await self._send(message)
            return
        if not self._reads:
            await self._send(message)
            return
        self._pieces.append(message.get("body", b""))
        self._size += len(self._pieces[-1])
        if self._size > _MAX_ANSWER:
            if self._list:
                self._unreadable, self._pieces = True, []
                return
            await self._give_up(message)
        elif not message.get("more_body", False):
            await self._finish()

    async def _give_up(self, message: Message) -> None:
        """Send what was held: this JSON is the content of a file."""
        self._reads = False
        assert self._start is not None  # noqa: S101 (ASGI's order)
        await self._send(self._start)
        pieces, self._pieces = self._pieces, []
        await self._send({**message, "body": b"".join(pieces)})

    async def _finish(self) -> None:
        body = b"".join(self._pieces)
        answer = _object(body)
        assert self._start is not None  # noqa: S101 (ASGI's order)
        start = self._start
        items = answer.get("data")
        if self._list and not isinstance(items, list):
            self._unreadable = True
            return
        if isinstance(items, list):
            if self._list:
                answer["data"] = await self._resources.owned(self._provider, self._owner, items)
                answer |= _bounds(answer)
                body = _json.dumps(answer)
                headers = [h for h in start["headers"] if h[0] != b"content-length"]
                length = (b"content-length", b"%d" % len(body))
                start = {**start, "headers": [*headers, length]}
        elif answer:
            key_id = dict(start["headers"]).get(KEY.encode(), b"").decode("latin-1")
            await self._resources.remember(self._provider, self._owner, key_id, answer)
            await self._keep_or_settle(answer)
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _keep_or_settle(self, batch: Mapping[str, Any]) -> None:
        """Keep what was charged for a new batch, or settle one that has ended without results."""
        batches, id = self._batches, batch.get("id")
        if batches is None or not isinstance(id, str):
            return
        name = f"{self._provider.name}:{id}"
        if self._receipt:
            receipt, self._receipt = name.encode() + b" " + self._receipt, b""
            await batches.keep(name, receipt)
            return
        known = await batches.find(name)
        if known is None:
            return
        if ended_without_results(batch):
            await batches.settle(name, known.partition(b" ")[2], ())
        elif isinstance(file := batch.get("output_file_id"), str):
            await batches.keep(f"{self._provider.name}:{file}", known)

    def check(self) -> None:
        """Raise APIError for a list of which the caller's own items could not be found."""
        if self._unreadable:
            raise APIError(
                ErrorKind.UPSTREAM, "The provider's list cannot be read, or is too long."
            )

    async def aclose(self) -> None:
        """Give back what was charged for a batch that was not created."""
        receipt, self._receipt = self._receipt, b""
        if receipt and self._batches is not None:
            await self._batches.settle(f"{getrandbits(128):032x}", receipt, ())


def _bounds(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The first and the last id of a list, if it names them."""
    items = answer["data"]
    ends = {"first_id": items[0]["id"] if items else None}
    ends["last_id"] = items[-1]["id"] if items else None
    return {name: id for name, id in ends.items() if name in answer}


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


def _entry(provider: Provider, id: str) -> str:
    return f"resource:{provider.name}:{id[:300]}"


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


def _not_found(id: str) -> APIError:
    shown = id if len(id) <= 100 else id[:100] + "..."
    return APIError(ErrorKind.NOT_FOUND, f"No such resource: {shown!r}.", code="not_found")
