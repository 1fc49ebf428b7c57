"""A validated client request, ready to be sent to the upstream."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence

import msgspec

from asgi_aiproxy._asgi import RawHeaders, Scope
from asgi_aiproxy._control_headers import KEY, PROVIDER_KEY_HEADERS, SESSION
from asgi_aiproxy._request_id import SENT_NAME, request_id
from asgi_aiproxy.credentials import (
    INJECTED,
    caller_key,
    find_credential,
    presented_credentials,
    strip_credentials,
    strip_from_query,
    strip_from_subprotocols,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY, AdmissionControl, must_inspect
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.headers import ForwardedInfo, Pairs, read_request_headers
from asgi_aiproxy.passthrough.path_patterns import validate_query
from asgi_aiproxy.passthrough.routes import Route, Routes
from asgi_aiproxy.passthrough.target import ProxyTarget
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.providers.base import HeaderAuth
from asgi_aiproxy.providers.vendor_headers import ACCOUNT_HEADERS
from asgi_aiproxy.upstream.base import Headers, UpstreamRequest


class ProxyRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A validated request, without the caller's credentials.

    `headers` are sent to the upstream, together with the key's; `read_headers` are those that the
    proxy reads, by name. `own_key` is a key that the caller brings, `key_id` the key that it
    selects, `injected` the id of a key that a middleware has added, and `length` the declared
    length of the body in bytes. `inspected`: its content must be inspected, because models or a
    budget of the caller depend on it.
    """

    id: str
    target: ProxyTarget
    route: Route
    method: str
    query: str
    headers: Pairs
    read_headers: Mapping[str, str]
    subprotocols: tuple[str, ...]
    principal: Principal
    own_key: str
    key_id: str
    affinity: str
    injected: str
    length: int | None
    content_type: str
    content_encoding: str
    host: str
    inspected: bool
    scope: Scope

    def __repr__(self) -> str:
        # Without headers, which may contain secrets
        return f"ProxyRequest({self.method} {self.route.path})"

    @property
    def forwarded_info(self) -> ForwardedInfo:
        """Return the values for the `x-forwarded-*` headers."""
        return ForwardedInfo.of(self.scope, self.host, self.route.prefix)

    @property
    def token(self) -> str:
        """Return the token that authenticated the caller."""
        return (find_credential(self.scope) or "") if SCOPE_KEY in self.scope else ""

    def with_headers(self, added: Mapping[str, str]) -> ProxyRequest:
        """The same request with further headers, which replace those of the same names."""
        if not added:
            return self
        kept = [pair for pair in self.headers if pair[0].lower() not in added]
        return msgspec.structs.replace(self, headers=[*kept, *added.items()])

    def outgoing(
        self,
        key: Key | None,
        *,
        body: bytes | AsyncIterable[bytes] | None = None,
        length: int | None = None,
        keep_host: bool = False,
    ) -> UpstreamRequest:
        """Return the upstream request with this key; `length` is that of a streamed body,
        if known.
        """
        target = self.target
        provider = target.provider
        headers: Headers = self.headers
        if keep_host and self.host:
            headers = [("host", self.host), *headers]
        if length is not None:
            headers = [*headers, ("content-length", str(length))]
        route = self.route
        url, proxy = route.url, None
        auth = provider.auth if provider is not None and key is not None else None
        if key is not None:
            proxy = key.proxy
            if key.base_url is not None:
                url = target.url(route.path, key)
            if isinstance(auth, HeaderAuth):
                # A tuple: a client sends the same headers in most of its calls
                headers, auth = (*headers, auth.header(key.secret)), None
        if proxy is None and provider is not None:
            proxy = provider.proxy
        out = UpstreamRequest(
            method=self.method,
            url=f"{url}?{self.query}" if self.query else url,
            headers=headers,
            body=body,
            streamed=True,
            raw=True,
            proxy=proxy,
        )
        return auth(out, key.secret) if auth is not None and key is not None else out

    def check_models(self, models: Sequence[str], otherwise: str = "") -> None:
        """Raise APIError if the caller is restricted to models, and one of these is not among them.

        `otherwise` is the text for a request that calls models but names none.
        """
        if not self.principal.models:
            return
        for model in models:
            if not (model and self.principal.may_use(model)):
                message = f"The model {model!r} is not one of the models that you may use."
                raise _not_allowed(message)
        if not models and otherwise:
            raise _not_allowed(f"You may only use certain models, and {otherwise}.")


def _not_allowed(message: str) -> APIError:
    return APIError(ErrorKind.FORBIDDEN, message, param="model", code="model_not_allowed")


def parse_request(
    scope: Scope, target: ProxyTarget, routes: Routes, *, allow_client_keys: bool
) -> ProxyRequest:
    """Return the request in a scope. Raises APIError if it is invalid or not allowed."""
    policy = target.policy
    head = read_request_headers(scope["headers"], policy)
    route = routes.of(scope)
    read, headers = head.read, head.passed
    id = request_id(scope, read)
    principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
    if principal.providers and not principal.may_use_provider(target.name):
        raise APIError(ErrorKind.FORBIDDEN, f"You are not allowed to use {target.name!r}.")
    provider = target.provider
    keyed = provider is not None and provider.keys is not None
    injected: str = "" if keyed else scope.get(INJECTED, "")
    query: bytes = scope.get("query_string", b"")
    subprotocols: tuple[str, ...] = ()
    if "subprotocols" in scope:
        subprotocols = tuple(scope["subprotocols"])
    # A caller's credential is sent to an application unless it was for the gateway.
    if injected or (provider is None and SCOPE_KEY not in scope):
        headers += _decoded(
            [pair for pair in head.credentials if pair[0] not in PROVIDER_KEY_HEADERS]
        )
    elif head.credentials or query or subprotocols:
        credentials_shown = presented_credentials(
            {"headers": head.credentials, "query_string": query, "subprotocols": subprotocols}
        )
        if credentials_shown:
            headers = _without_secret(headers, credentials_shown)
            query = strip_from_query(query, credentials_shown) if query else query
        if subprotocols:
            subprotocols = tuple(strip_from_subprotocols(subprotocols, credentials_shown))
    own_key = caller_key(scope) if allow_client_keys else ""
    if own_key:
        headers += [
            (name, value) for name, value in _decoded(scope["headers"]) if name in ACCOUNT_HEADERS
        ]
    if not policy.encoded:
        headers.append(("accept-encoding", "identity"))
    if target.headers:
        given = {name for name, _ in headers}
        headers += [pair for pair in target.headers if pair[0] not in given]
    if provider is None and SENT_NAME not in read:
        headers.append((SENT_NAME, id))
    host = read.get("host", "")
    if policy.forwarded in ("set", "append"):
        headers = ForwardedInfo.of(scope, host, route.prefix).added(headers, policy.forwarded)
    # A budget does not apply to requests for an application, or with a key of the caller's own.
    priced: AdmissionControl | None = scope.get(GATE_KEY) if provider and not own_key else None
    return ProxyRequest(
        id=id,
        target=target,
        route=route,
        method=scope.get("method", "GET"),
        query=validate_query(query) if query else "",
        headers=headers,
        read_headers=read,
        subprotocols=subprotocols,
        principal=principal,
        own_key=own_key,
        key_id=principal.key_id or (read.get(KEY, "") if principal.may_choose_key else ""),
        affinity=read.get(SESSION, ""),
        injected=injected,
        length=head.length,
        content_type=read.get("content-type", ""),
        content_encoding=read.get("content-encoding", ""),
        host=host,
        inspected=must_inspect(principal, priced),
        scope=scope,
    )


def _without_secret(headers: Pairs, credentials_shown: frozenset[str]) -> Pairs:
    """Return the headers without those that repeat a credential, which is rare."""
    joined = "\n".join([value for _, value in headers])
    for secret in credentials_shown:
        if secret in joined:
            break
    else:
        return headers
    raw: RawHeaders = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return [
        (name.decode(), v.decode("latin-1"))
        for name, v in strip_credentials(raw, credentials_shown)
    ]


def _decoded(headers: RawHeaders) -> Pairs:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
