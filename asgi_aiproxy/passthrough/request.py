"""What one client asks of an upstream, made ready to leave."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import RawHeaders, Scope
from asgi_aiproxy.credentials import (
    INJECTED,
    credential,
    presented,
    query_without,
    subprotocols_without,
    without,
)
from asgi_aiproxy.errors import APIError, Kind
from asgi_aiproxy.identity import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.headers import Forwarding, check, request_headers
from asgi_aiproxy.passthrough.paths import checked, checked_query
from asgi_aiproxy.passthrough.site import Site
from asgi_aiproxy.upstream.base import Outgoing

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_READ = frozenset({b"x-auth-id", b"x-session-affinity", b"content-length", b"content-type"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the upstream may see it: safe, open, and without the caller's credentials.

    `path` is below the base URL. `own_key` and `key_id` are the caller's wishes for the key.
    """

    site: Site
    method: str
    path: str
    query: str
    headers: RawHeaders
    subprotocols: tuple[str, ...]
    way: Forwarding
    operation: str
    principal: Principal
    own_key: str
    key_id: str
    affinity: str
    injected: str  # the id of the key that a middleware has put in
    token: str = field(repr=False)  # what the caller was known by
    length: int | None  # of the body, if the client says so
    content_type: str

    def outgoing(
        self,
        key: Key | None,
        *,
        body: bytes | AsyncIterable[bytes] | None = None,
        length: int | None = None,
        keep_host: bool = False,
    ) -> Outgoing:
        """The request with this key; `length` is that of a body to iterate over, if it is known."""
        provider = self.site.provider
        given = self.headers
        if firm := self.site.firm:
            given = [pair for pair in given if pair[0] not in firm]
        own = self.site.headers
        headers = request_headers(given, self.site.policy, of=self.way, defaults=own)
        if keep_host and self.way.host:
            headers.insert(0, ("host", self.way.host))
        if length is not None:
            headers.append(("content-length", str(length)))
        url = self.site.base(key) + (self.path or ("/" if provider is None else ""))
        out = Outgoing(
            method=self.method,
            url=f"{url}?{self.query}" if self.query else url,
            headers=headers,
            body=body,
            streamed=True,
            raw=True,
            proxy=(key.proxy if key is not None else None) or (provider and provider.proxy) or None,
        )
        return provider.auth(out, key.secret) if provider is not None and key is not None else out

    def check_model(self, model: str) -> None:
        """Raise APIError if the caller is bound to models, and this is none of them, or unknown."""
        if not self.principal.models:
            return
        if model and self.principal.may_use(model):
            return
        if not model and self.method in _SAFE:
            return
        message = (
            f"The model {model!r} is not among those you may use."
            if model
            else "You may use some models only, and this request does not name one."
        )
        raise APIError(Kind.FORBIDDEN, message, param="model", code="model_not_allowed")


def read(scope: Scope, site: Site, *, own_keys: bool) -> Asked:
    """What a scope asks of `site`. Raises APIError if it may not pass."""
    check(scope)
    below = _asgi.local_path(scope)
    if below is None:
        raise APIError(Kind.NOT_FOUND, f"There is nothing at {scope['path']!r}.")
    method: str = scope.get("method", "GET")
    path = site.local(checked(below))
    operation = site.operation(method, path)
    principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
    if not principal.may_have(site.name):
        raise APIError(Kind.FORBIDDEN, f"You may not use {site.name!r}.")
    told = _asgi.headers(scope, _READ)
    own_key = _own_key(scope) if own_keys else ""
    injected: str = scope.get(INJECTED, "")
    headers: RawHeaders = list(scope["headers"])
    query: bytes = scope.get("query_string", b"")
    subprotocols = tuple(scope.get("subprotocols", ()))
    keyed = site.provider is not None and site.provider.keys is not None
    if keyed:
        injected = ""
    # To an application a caller's credential may go on, unless it was one for the gateway.
    ours = site.provider is not None or SCOPE_KEY in scope
    if ours and not injected:
        shown = presented(scope)
        headers = without(headers, shown)
        query = query_without(query, shown)
        subprotocols = tuple(subprotocols_without(subprotocols, shown))
    return Asked(
        site=site,
        method=method,
        path=path,
        query=checked_query(query),
        headers=headers,
        subprotocols=subprotocols,
        way=Forwarding.of(scope, mounted_at(scope, below)),
        operation=operation,
        principal=principal,
        own_key=own_key,
        key_id=principal.key_id or (told.get(b"x-auth-id", "") if principal.may_pin else ""),
        affinity=told.get(b"x-session-affinity", ""),
        injected=injected,
        token=(credential(scope) or "") if SCOPE_KEY in scope else "",
        length=int(told[b"content-length"]) if b"content-length" in told else None,
        content_type=told.get(b"content-type", ""),
    )


def _own_key(scope: Scope) -> str:
    key = _asgi.header(scope, b"x-provider-key")
    if key is None and SCOPE_KEY not in scope:
        key = credential(scope)
    return key or ""


def mounted_at(scope: Scope, below: str) -> str:
    """The path that clients know this app by: what stands before `below`, the path below it."""
    root: str = scope.get("root_path", "").rstrip("/")
    raw = scope.get("raw_path")
    if raw is None:
        return root
    sent = raw.decode("latin-1").partition("?")[0]
    seen = sent.removesuffix(below) if sent.endswith(below) else ""
    if root.endswith(seen):  # also if nothing is seen: a server has cut it off
        return root
    return seen if seen.startswith(root) else root + seen


def rewritten(name: str, location: str, asked: Asked, key: Key | None) -> str:
    """A location of the upstream's as clients find it again: below the mount.

    Elsewhere it stays as it is. Where Google wants an upload, its clients show no key: there the
    caller's own token stands in the address, as Google's keys may.
    """
    found = _below_mount(location, asked, key)
    if found != location and asked.token and name.startswith("x-goog-upload-"):
        found += f"{'&' if '?' in found else '?'}key={quote(asked.token, safe='')}"
    return found


def _below_mount(location: str, asked: Asked, key: Key | None) -> str:
    base = urlsplit(asked.site.base(key))
    try:
        parts = urlsplit(location)
        same = (parts.scheme, parts.netloc.lower()) == (base.scheme, base.netloc.lower())
    except ValueError:
        return location
    rooted = not parts.scheme and not parts.netloc and location.startswith("/")
    if not same and not rooted:
        return location
    prefix = asked.way.prefix
    if rooted and (not prefix or parts.path == prefix or parts.path.startswith(prefix + "/")):
        return location  # the upstream knows where it is mounted, or it makes no difference
    path = parts.path
    if asked.site.provider is None:
        # An application's paths are those below its base.
        if path != base.path and not path.startswith(base.path.rstrip("/") + "/"):
            return location
        path = path[len(base.path.rstrip("/")) :]
    origin = f"{asked.way.scheme}://{asked.way.host}" if same and asked.way.host else ""
    rest = location[location.index(parts.path) + len(parts.path) :] if parts.path else ""
    return f"{origin}{prefix}{path}{rest}"
