"""The resources of one proxied request: whose they are, and which key holds them. Theory of
operation.

- `check` finds the resources that the path and the JSON body name. One that the caller may not use
  (see `ResourceOwnership`) is answered with 404, as the vendor answers for one that does not exist.
- `key_id` is then the key that holds them.
- `read` records the resources that a JSON response creates, with the caller and the key, and leaves
  only the caller's own in a list. Such a response is held until it is complete; longer ones are
  passed on as they arrive, but a list of which only a part may be sent is then refused.
- `watch_upload` searches an uploaded file for ids, since it may hold the calls of a batch. Whether
  they are the caller's is checked when the file has arrived; one that names another's is then
  recorded as of no owner, so that nothing can use it.
- `note_stream` records the resource that a stream creates, from its beginning.

There is a tracker only for requests with a key of the pool: if the caller is known, or if the pool
has several keys. Callers without an id are treated as one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import off_loop
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.keys.resource_records import ResourceOwnership, ResourceRecord, ResourceRecords
from asgi_aiproxy.passthrough.body import Content
from asgi_aiproxy.passthrough.buffered_response import BufferedResponse
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers.resource_references import (
    IdScanner,
    created_ids,
    last_segment,
    references,
)
from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.upstream.base import Headers, UpstreamResponse, header

_DAY = 86_400.0
_RECORDED_SECONDS = 400 * _DAY
# A response that a model call stores is used by the next one; there are many of them.
_CALL_SECONDS = {"recorded": _DAY, "strict": 30 * _DAY, "off": _DAY}
_MAX_ANSWER = 16 * 1024 * 1024  # bytes of a list, or of a resource
_NO_OWNER = "-"  # differs from every digest
_FRAMING = frozenset({"content-length", "transfer-encoding", "content-md5", "digest", "etag"})
# The first id in a response is its own; in a stream of events it is that of the resource.
_CREATED = re.compile(rb'"(?:id|name)"\s*:\s*"([^"\\]{1,300})"')


class ResourceTracker:
    """Tracks the resources of one request; `resource_tracker` makes it.

    `reads_body`: the body must be read as a whole, because its references are checked.
    `names_resources`: the request uses or creates some. `key_id` is the key that holds them, empty
    if that is unknown.
    """

    def __init__(
        self, records: ResourceRecords, ownership: ResourceOwnership, request: ProxyRequest
    ) -> None:
        self._records = records
        self._ownership = ownership
        self._request = request
        self._owner = owner_of(request.principal) if ownership.check != "off" else ""
        self._stored: bool | None = None
        self._uploaded: IdScanner | None = None
        self.reads_body = bool(self._owner and request.target.path_profile.stateful)
        self.names_resources = False
        self.key_id = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do after `check`: it is a plain call of a model."""
        return not self._request.route.stateful and self._stored is not True

    @property
    def lists(self) -> bool:
        """Whether the request is for a list of which only a part may be sent."""
        route = self._request.route
        collection = route.stateful and not route.resource and self._request.method == "GET"
        return collection and bool(self._owner)

    async def check(self, body: bytes, *, stored: bool | None) -> None:
        """Check the resources that the request names, and find the key that holds them.

        `stored` is the body's member `store`. Raises APIError if the caller may not use one.
        """
        self._stored = stored
        route = self._request.route
        named = await off_loop(len(body), self._references, body) if body else {}
        if route.named or route.resource:
            named = {**dict.fromkeys(route.named, False), **named}
        if route.resource:
            named[route.resource] = True
        self.names_resources = bool(named) or (route.stateful and stored is not False)
        if named:
            self.key_id = await usable_key(self._records, self._ownership, self._owner, named)

    def _references(self, body: bytes) -> dict[str, bool]:
        """Return the ids that a body names, which may be a file."""
        kind = self._request.content_type.partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            return {}  # see `watch_upload`
        call = kind == "application/json" or not self._request.route.stateful
        return references(body, call=call)

    def watch_upload(self, content: Content) -> None:
        """Search an upload for the ids of resources while it is sent."""
        route, request = self._request.route, self._request
        upload = request.content_type.lower().startswith("multipart/")
        if not (self._owner and upload and route.stateful and route.free):
            return
        self._uploaded = IdScanner()
        if isinstance(content, bytes):
            self._uploaded.feed(content)
        elif content is not None:
            content.observe(self._uploaded.feed, lambda: None)

    @property
    def creates(self) -> bool:
        """Whether the response may create a resource."""
        route = self._request.route
        if self._request.method != "POST":
            return False
        return self._stored is True or (route.stateful and self._stored is not False)

    async def read(self, response: UpstreamResponse, key_id: str) -> UpstreamResponse:
        """Record what a response creates, and filter a list. Raises APIError if that is impossible.

        `key_id` is the key that the request was sent with.
        """
        kind = header(response.headers, "content-type") or ""
        if response.status >= 300 or not (self.lists or self._reads(kind)):
            return response
        held = await _hold(response)
        if not isinstance(held, BufferedResponse):
            if self.lists:
                raise _unreadable_list_error()
            return held
        document = await off_loop(len(held.body), _parsed, held.body)
        if self.lists:
            if document is None or not await self._keep_own(document):
                raise _unreadable_list_error()
            body = _json.dumps(document)
            headers = [pair for pair in held.headers if pair[0] not in _FRAMING]
            headers = [*headers, ("content-length", str(len(body)))]
            return BufferedResponse(held.status, headers, body)
        if document is not None:
            await self._check_upload(document, key_id)
            known = bool(self._request.route.resource)
            await self._record(created_ids(document, known=known), key_id)
        return held

    async def _check_upload(self, document: Mapping[str, Any], key_id: str) -> None:
        """Raise APIError for an uploaded file that names a resource which the caller cannot use."""
        if self._uploaded is None or not self._uploaded.ids:
            return
        try:
            self._uploaded.check_complete()
            await usable_key(self._records, self._ownership, self._owner, self._uploaded.ids)
        except APIError:
            unusable = ResourceRecord(_NO_OWNER, key_id)
            for id in created_ids(document):
                await self._records.remember(id, unusable, _RECORDED_SECONDS)
            raise

    async def note_stream(self, head: bytes, key_id: str) -> None:
        """Record the resource that a stream has created; `head` is its beginning."""
        found = _CREATED.search(head) if self.creates else None
        if found is not None:
            await self._record([last_segment(found[1].decode("utf-8", "replace"))], key_id)

    def _reads(self, content_type: str) -> bool:
        if not content_type.lower().startswith("application/json"):
            return False
        route = self._request.route
        if self._request.method == "GET":  # not the content of a file, which may be JSON as well
            return route.stateful and route.path.endswith(route.resource)
        return self.creates

    async def _record(self, ids: Iterable[str], key_id: str) -> None:
        route = self._request.route
        if route.resource and self._owner:
            # What belongs to a resource of this caller; another's must not be claimed.
            known = await self._records.find(route.resource)
            if known is None or known.owner != self._owner:
                return
        seconds = _RECORDED_SECONDS
        if route.remembered_seconds <= _DAY or not route.stateful:
            seconds = _CALL_SECONDS[self._ownership.check]
        for id in ids:
            await self._records.remember(id, ResourceRecord(self._owner, key_id), seconds)

    async def _keep_own(self, answer: dict[str, Any]) -> bool:
        """Leave the caller's own items in the lists of an answer; returns whether it has one."""
        found = not answer  # Google sends an empty object for an empty list
        for name, items in answer.items():
            if isinstance(items, list):
                found = True
                own = await asyncio.gather(*(self._may_list(item) for item in items))
                answer[name] = [item for item, kept in zip(items, own, strict=True) if kept]
        answer |= _bounds(answer)
        return found

    async def _may_list(self, item: Any) -> bool:
        id = item.get("id") or item.get("name") if isinstance(item, dict) else None
        if not isinstance(id, str):
            return False
        id = last_segment(id)
        record = await self._records.find(id)
        if record is not None and record.owner == self._owner:
            return True
        return record is None and self._ownership.shares(id)


def resource_tracker(
    records: ResourceRecords | None, ownership: ResourceOwnership, request: ProxyRequest
) -> ResourceTracker | None:
    """The tracker of a request; None if there is nothing to track."""
    provider = request.target.provider
    if records is None or request.own_key or provider is None or provider.keys is None:
        return None
    if len(provider.keys) < 2 and (ownership.check == "off" or not owner_of(request.principal)):
        return None
    return ResourceTracker(records, ownership, request)


def owner_of(principal: Principal) -> str:
    """The owner of what a caller creates; empty for callers without an id."""
    return principal.tenant if principal.id or principal.account else ""


async def usable_key(
    records: ResourceRecords, ownership: ResourceOwnership, owner: str, named: Mapping[str, bool]
) -> str:
    """The key that holds resources; empty if that is unknown.

    `named` says of each id whether it certainly is one. Raises APIError (404) for a resource that
    `owner` may not use, and (503) if the store is unavailable and they cannot be checked.
    """
    if ownership.check == "off" or not owner:
        return await records.key_of(named)
    try:
        found = await asyncio.gather(*map(records.find, named))
    except StoreUnavailableError as error:
        message = "Files and other resources are not available at the moment; try again."
        raise APIError(ErrorKind.OVERLOADED, message, retry_after=1.0) from error
    for (id, certain), record in zip(named.items(), found, strict=True):
        if not ownership.allows(id, record, owner, certain=certain):
            raise no_such_resource_error(id)
    return next((record.key_id for record in found if record is not None), "")


def no_such_resource_error(id: str) -> APIError:
    """The error for a resource that the caller may not use, or that does not exist."""
    shown = id if len(id) <= 100 else id[:100] + "..."
    return APIError(ErrorKind.NOT_FOUND, f"No such resource: {shown!r}.", code="not_found")


def _unreadable_list_error() -> APIError:
    return APIError(ErrorKind.UPSTREAM, "The provider's list cannot be read, or is too long.")


class _ResumedResponse:
    """A response of which some pieces were read before."""

    def __init__(self, response: UpstreamResponse, pieces: list[bytes]) -> None:
        self.status: int = response.status
        self.headers: Headers = response.headers
        self._response = response
        self._pieces = pieces

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end. Raises APIError."""
        return self._pieces.pop(0) if self._pieces else await self._response.read()

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()


async def _hold(response: UpstreamResponse) -> UpstreamResponse:
    """Read a response to its end, as a BufferedResponse; one that is too long stays a stream."""
    pieces: list[bytes] = []
    size = 0
    while data := await response.read():
        pieces.append(data)
        size += len(data)
        if size > _MAX_ANSWER:
            return _ResumedResponse(response, pieces)
    await response.aclose()
    return BufferedResponse(response.status, response.headers, b"".join(pieces))


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        found = _json.loads(body)
    except _json.NotJSONError:
        return None
    return found if isinstance(found, dict) else None


def _bounds(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The first and the last id of a list, if it names them."""
    items = answer.get("data")
    if not isinstance(items, list):
        return {}
    ends = {"first_id": items[0].get("id") if items else None}
    ends["last_id"] = items[-1].get("id") if items else None
    return {name: id for name, id in ends.items() if name in answer}
