"""`Provider`: the API of a vendor, as a dialect, a base URL, credentials and quirks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote_plus, urlsplit

import msgspec

from asgi_aiproxy import __version__, _json
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.keys.key import as_list, check_proxy_url
from asgi_aiproxy.operations.base import AnyOperationAPI
from asgi_aiproxy.providers.emulator import Emulator
from asgi_aiproxy.providers.refusal_codes import Refusals
from asgi_aiproxy.upstream.base import TOKEN, Headers, Timeouts, UpstreamRequest

if TYPE_CHECKING:
    from asgi_aiproxy.providers.temporary_credentials import CredentialCache

Auth = Callable[[UpstreamRequest, str], UpstreamRequest]  # pure: adds a secret to a request
TransformRequest = Callable[[ProviderRequest], ProviderRequest]


class HeaderAuth(msgspec.Struct, frozen=True):
    """Sends the secret in the header `name`, after `lead`.

    So the headers that a provider is sent with a key are the same in all calls.
    """

    name: str
    lead: str = ""

    def __call__(self, request: UpstreamRequest, secret: str) -> UpstreamRequest:
        """Return the request with the secret."""
        return request.with_header(*self.header(secret))

    def header(self, secret: str) -> tuple[str, str]:
        """Return the header with the secret."""
        return self.name, self.lead + secret


def header(name: str, scheme: str = "") -> Auth:
    """Send the secret in the header `name`, after `scheme` if given."""
    return HeaderAuth(name.lower(), f"{scheme} " if scheme else "")


bearer: Auth = header("authorization", "Bearer")  # `authorization: Bearer <secret>`


def query(name: str) -> Auth:
    """Send the secret in the query parameter `name`. A parameter of the caller with it is removed.

    Prefer a header if the vendor accepts one: servers log URLs. (This package shows and logs URLs
    without their query.)
    """
    lead = quote(name, safe="") + "="

    def auth(request: UpstreamRequest, secret: str) -> UpstreamRequest:
        url, _, given = request.url.partition("?")
        parts = [p for p in given.split("&") if p and unquote_plus(p.partition("=")[0]) != name]
        parts.append(lead + quote(secret, safe=""))
        return msgspec.structs.replace(request, url=f"{url}?{'&'.join(parts)}")

    return auth


def key_in_subprotocol(prefix: str = "openai-insecure-api-key.") -> Auth:
    """Send the secret of a WebSocket as a subprotocol, after `prefix`: for `PassthroughProxy`."""

    def auth(request: UpstreamRequest, secret: str) -> UpstreamRequest:
        return request.with_header("sec-websocket-protocol", prefix + secret)

    return auth


def identity(draft: ProviderRequest) -> ProviderRequest:
    """Return the request unchanged."""
    return draft


_URL = re.compile(r"(\w+://)?([^/]*)(.*)", re.DOTALL)
_MAX_CACHED_MODELS, _MAX_CACHED_NAME_LENGTH = 256, 256
_NO_HEADERS: dict[str, str] = {}
_JSON = {"content-type": "application/json"}
_HEADERS = {
    "accept": "*/*",
    "accept-encoding": "identity",  # compression delays streams
    "user-agent": f"asgi-aiproxy/{__version__}",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """The API of a vendor, or of a compatible server. Immutable.

    - `name`: unique name; also the prefix of models as `name/model`.
    - `dialect`: the API that the provider speaks.
    - `base_url`: prefix of all request paths.
    - `auth`: adds a secret to a request (`bearer`, `header(...)`, `query(...)`, `SigV4(...)`).
    - `headers`: sent with every request.
    - `transform_request`: pure function for the vendor's quirks. It is applied to every request of
      a shim (calls, key tests, lists of models), but not to requests of `PassthroughProxy`.
    - `native_operations`: names of the operations that pass through unconverted. Other chat
      operations are translated.
    - `strict_format`: responses follow the dialect exactly. If False, they are normalized.
    - `operations`: its own APIs for operations besides chat (`asgi_aiproxy.operations`). Requests
      of clients are converted to them.
    - `catalogue`: model names for `GET /v1/models`. If empty, the provider's own list is requested.
    - `keys`: the API keys. `proxy`: URL of an outbound proxy. `timeouts`: in seconds.
    - `path_profile`: name of the API whose paths `PassthroughProxy` opens, if not the dialect's.
    - `credentials`: exchanges keys for credentials that expire; None: keys are sent themselves.
    - `emulate`: emulates tools or JSON output for models that do not have them
      (`asgi_aiproxy.emulation.Emulation`); a target may have its own.
    - `refusals`: the meaning of the vendor's error codes (`asgi_aiproxy.providers.refusal_codes`;
      by default those of the dialect).

    Raises ConfigurationError if a value is invalid.
    """

    name: str
    dialect: OutboundDialect
    base_url: str
    auth: Auth = bearer
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    transform_request: TransformRequest = identity
    native_operations: frozenset[str] = frozenset()
    strict_format: bool = True
    catalogue: tuple[str, ...] = ()
    keys: KeyPool | None = None
    proxy: str | None = None
    timeouts: Timeouts | None = None
    path_profile: str = ""
    refusals: Refusals | None = field(default=None, hash=False)
    credentials: CredentialCache | None = None
    operations: tuple[AnyOperationAPI, ...] = field(default=(), hash=False)
    emulate: Emulator | None = field(default=None, hash=False)
    _headers: dict[str, str] = field(init=False, repr=False, compare=False)
    _json_headers: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)
    # A cache by model: most requests use one of a few.
    _targets: dict[str, tuple[Target, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or not self.name.isprintable():
            raise ConfigurationError(
                f"Provider {self.name!r}: a name must not be empty or contain '/', because models "
                f"can be requested as 'name/model'."
            )
        if not isinstance(self.base_url, str):
            raise ConfigurationError(
                f"Provider {self.name!r}: base_url must be a string, "
                f"not {type(self.base_url).__name__}."
            )
        try:
            parts = urlsplit(self.base_url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError(f"Provider {self.name!r}: base_url: {error}.") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigurationError(
                f"Provider {self.name!r}: base_url must begin with http:// or https:// and a host, "
                f"not {_shown(self.base_url)!r}."
            )
        check_proxy_url(self.proxy, f"Provider {self.name!r}")
        for name, value in self.headers.items():
            sendable = isinstance(value, str) and value.isprintable()
            if not (isinstance(name, str) and TOKEN.fullmatch(name) and sendable):
                raise ConfigurationError(
                    f"Provider {self.name!r}: headers[{name!r}] is not a valid HTTP header name "
                    f"and value."
                )
        if parts.query or parts.fragment:
            raise ConfigurationError(
                f"Provider {self.name!r}: base_url must not have a query or fragment: "
                f"{_shown(self.base_url)!r}."
            )
        headers = {**_HEADERS, **{name.lower(): value for name, value in self.headers.items()}}
        object.__setattr__(self, "_headers", headers)
        object.__setattr__(self, "_json_headers", tuple({**headers, **_JSON}.items()))
        object.__setattr__(self, "_targets", {})

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {_shown(self.base_url)!r}, {self.keys!r})"

    def using(
        self, keys: KeyPool | str | Key | Iterable[str | Key] = (), **changes: Any
    ) -> Provider:
        """A copy with the given keys, and any other changed fields.

        Without `keys` the copy has those of the original; local servers often need none. What is
        fetched for keys that are not sent themselves is shared by the workers that share a pool, if
        that encrypts. Raises ConfigurationError for an empty list of keys or an invalid value.
        """
        if isinstance(keys, list | set | frozenset | dict) and not keys:
            raise ConfigurationError(
                f"{self.name}: the list of keys is empty. Give at least one key, or leave the "
                "argument out if the server needs none."
            )
        name = changes.get("name", self.name)
        if isinstance(keys, KeyPool):
            pool: KeyPool | None = keys
        else:
            given = as_list(keys, name)
            pool = KeyPool(given, name=name) if given else self.keys
        if self.credentials is not None and "credentials" not in changes:
            changes["credentials"] = self.credentials.for_pool(pool, name)
        return replace(self, keys=pool, **changes)

    def request(
        self,
        method: str,
        draft: ProviderRequest,
        key: Key | None,
        *,
        streamed: bool,
        body: bytes | AsyncIterable[bytes] | None = None,
        content: Mapping[str, str] | None = None,
    ) -> UpstreamRequest:
        """The upstream request of `draft` with its key.

        `body` is its encoded body; without one, that of `draft` is encoded. `content` are the
        headers that describe the body, if it is not JSON. `streamed`: see `UpstreamRequest`.
        """
        if body is None and draft.body:
            body = _json.dumps(draft.body)
        base, proxy = self.base_url, self.proxy
        if key is not None:
            base, proxy = key.base_url or base, key.proxy or proxy
        url = (draft.base_url or base).rstrip("/") + draft.path
        if draft.query:
            url += "?" + draft.query
        auth = self.auth if key is not None else None
        headers: Headers
        if body is not None and content is None and not draft.headers:
            headers = self._json_headers
            if key is not None and isinstance(auth, HeaderAuth):
                headers = (*headers, auth.header(key.secret))
                auth = None
            elif auth is not None:
                headers = [*headers]  # the key may be sent in a way that differs from call to call
        else:
            if content is None:
                content = _JSON if body is not None else _NO_HEADERS
            # Later headers replace earlier ones: those of the caller have precedence.
            headers = [*{**self._headers, **draft.headers, **content}.items()]
        out = UpstreamRequest(
            method=method, url=url, headers=headers, body=body, streamed=streamed, proxy=proxy
        )
        return auth(out, key.secret) if key is not None and auth is not None else out

    async def with_credential(self, key: Key | None) -> Key | None:
        """The key with the credential that is sent for it. Raises APIError if there is none."""
        if key is None or self.credentials is None:
            return key
        current = await self.credentials.current(key.secret)
        return key if current is key.secret else replace(key, secret=current)

    # A provider is also the simplest router.

    def targets(self, model: str, provider: str = "") -> tuple[Target, ...]:
        """Itself, for any model; none if `provider` names another one."""
        if provider and provider != self.name:
            return ()
        found = self._targets.get(model)
        if found is None:
            name = self.dialect.model_name(model.removeprefix(f"{self.name}/"))
            found = (Target(self, name),)
            if len(self._targets) < _MAX_CACHED_MODELS and len(model) < _MAX_CACHED_NAME_LENGTH:
                self._targets[model] = found
        return found

    def models(self) -> tuple[str, ...]:
        """Empty: it serves all its models without listing them."""
        return ()

    def model_offers(self) -> tuple[ModelOffer, ...]:
        """All its models."""
        return (ModelOffer(self),)


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and the provider's name of a model.

    Targets with a lower `priority` are tried first. Within one priority, a target is tried first in
    proportion to its `weight`. `emulate` is used instead of that of the provider. Raises
    ConfigurationError for a weight below 1.
    """

    provider: Provider
    model: str
    weight: int = 1
    priority: int = 0
    emulate: Emulator | None = None

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ConfigurationError(f"A target's weight must be at least 1, got {self.weight!r}.")


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """Models requested by the provider's own names: those that match `pattern`, after `prefix`."""

    provider: Provider
    pattern: str = "*"
    prefix: str = ""


class Router(Protocol):
    """Selects the providers of a request. (`model_offers` is optional.)"""

    def targets(self, model: str, provider: str = "") -> Sequence[Target]:
        """The targets for `model` in the order to try; `provider`: as requested by the caller."""

    def models(self) -> Sequence[str]:
        """The model names that the router knows."""

    def model_offers(self) -> Sequence[ModelOffer]:
        """Further models, whose names only the providers know."""


def _shown(url: str) -> str:
    """A URL without user, password and query, which may be secret."""
    scheme, host, path = _URL.fullmatch(url.partition("?")[0]).groups()  # type: ignore[union-attr]
    return f"{scheme or ''}{host.rpartition('@')[2]}{path}"
