"""What a provider is: a language, an address and credentials. A vendor is a row of these."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import quote, unquote_plus, urlsplit

import msgspec

from asgi_aiproxy import __version__, _json
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.keys.key import as_list, check_proxy_url
from asgi_aiproxy.providers.refusal_codes import Refusals
from asgi_aiproxy.upstream.base import TOKEN, Timeouts, UpstreamRequest

Auth = Callable[
    [UpstreamRequest, str], UpstreamRequest
]  # pure: a request and a secret make a request
TransformRequest = Callable[[ProviderRequest], ProviderRequest]


def bearer(request: UpstreamRequest, secret: str) -> UpstreamRequest:
    """`authorization: Bearer <secret>`."""
    return request.with_header("authorization", f"Bearer {secret}")


def header(name: str, scheme: str = "") -> Auth:
    """The secret in a header of this name, after `scheme` if there is one."""
    lead = f"{scheme} " if scheme else ""

    def auth(request: UpstreamRequest, secret: str) -> UpstreamRequest:
        return request.with_header(name.lower(), lead + secret)

    return auth


def query(name: str) -> Auth:
    """The secret in a parameter of the URL. One that the caller has given that name goes.

    (Where there is a choice, a header is better: servers write URLs into their logs. Here they are
    shown and logged without their query.)
    """
    lead = quote(name, safe="") + "="

    def auth(request: UpstreamRequest, secret: str) -> UpstreamRequest:
        url, _, given = request.url.partition("?")
        parts = [p for p in given.split("&") if p and unquote_plus(p.partition("=")[0]) != name]
        parts.append(lead + quote(secret, safe=""))
        return msgspec.structs.replace(request, url=f"{url}?{'&'.join(parts)}")

    return auth


def identity(draft: ProviderRequest) -> ProviderRequest:
    """No quirk to heed."""
    return draft


_URL = re.compile(r"(\w+://)?([^/]*)(.*)", re.DOTALL)
_REMEMBERED, _LONG = 256, 256
_NOTHING: dict[str, str] = {}
_JSON = {"content-type": "application/json"}
_HEADERS = {
    "accept": "*/*",
    "accept-encoding": "identity",  # compression only holds a stream back
    "user-agent": f"asgi-aiproxy/{__version__}",
}


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A vendor's API, or a server that speaks like one.

    `native_operations` names the operations that pass through as they are; what of chat is not
    among them is
    translated. `strict_format` says that the provider's answers keep to the letter of its
    dialect; others
    are mended on the way. `catalogue` names its models for `GET /v1/models`; without one it is
    asked. `transform_request` sees every request of a shim before it leaves (calls, tests of
    keys, lists of
    models), but not those of `PassthroughProxy`, which pass as they came. `path_profile` names
    the API
    whose paths `PassthroughProxy` opens, if that is not the dialect's. `refusals` says what the
    vendor's error words are about (`asgi_aiproxy.providers.refusal_codes`; by default as in its
    dialect).
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

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or not self.name.isprintable():
            raise ConfigurationError(
                f"Provider {self.name!r}: a name is not empty and holds no '/', for models can be "
                f"asked for as 'name/model'."
            )
        if not isinstance(self.base_url, str):
            raise ConfigurationError(
                f"Provider {self.name!r}: base_url is a text, not {type(self.base_url).__name__}."
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
                    f"Provider {self.name!r}: no HTTP header can be named and hold what "
                    f"headers[{name!r}] says."
                )
        if parts.query or parts.fragment:
            raise ConfigurationError(
                f"Provider {self.name!r}: base_url must end with its path: "
                f"{_shown(self.base_url)!r}."
            )

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {_shown(self.base_url)!r}, {self.keys!r})"

    def using(
        self, keys: KeyPool | str | Key | Iterable[str | Key] = (), **changes: Any
    ) -> Provider:
        """A copy with credentials (and any other change): a row becomes a working provider.

        Raises ConfigurationError for an empty list of keys. (Without `keys` the copy has those of
        the original: servers of one's own often need none.)
        """
        if isinstance(keys, list | set | frozenset | dict) and not keys:
            raise ConfigurationError(
                f"{self.name}: the list of keys is empty. Give at least one key, or leave the "
                "argument out if the server needs none."
            )
        if isinstance(keys, KeyPool):
            return replace(self, keys=keys, **changes)
        name = changes.get("name", self.name)
        made = as_list(keys, name)
        return replace(self, keys=KeyPool(made, name=name) if made else self.keys, **changes)

    def outgoing(
        self,
        draft: ProviderRequest,
        key: Key | None,
        *,
        method: str,
        streamed: bool,
        body: bytes | None = None,
    ) -> UpstreamRequest:
        """The request as it leaves, its key in place; `body` is the draft's, if it is encoded."""
        if body is None and draft.body:
            body = _json.dumps(draft.body)
        headers = _JSON if body is not None else _NOTHING
        return self.request(method, draft, key, body=body, headers=headers, streamed=streamed)

    def request(
        self,
        method: str,
        draft: ProviderRequest,
        key: Key | None,
        *,
        body: bytes | AsyncIterable[bytes] | None,
        headers: Mapping[str, str],
        streamed: bool,
    ) -> UpstreamRequest:
        """The request as it leaves, with a body that is encoded already."""
        base, proxy = self.base_url, self.proxy
        if key is not None:
            base, proxy = key.base_url or base, key.proxy or proxy
        url = base.rstrip("/") + draft.path
        if draft.query:
            url += "?" + draft.query
        # Later ones replace earlier ones: what the caller says of its request goes first.
        sent = {**self._headers, **draft.headers, **headers}
        out = UpstreamRequest(
            method=method,
            url=url,
            headers=list(sent.items()),
            body=body,
            streamed=streamed,
            proxy=proxy,
        )
        return self.auth(out, key.secret) if key is not None else out

    @cached_property
    def _headers(self) -> dict[str, str]:
        return {**_HEADERS, **{name.lower(): value for name, value in self.headers.items()}}

    # a provider is also the simplest router

    @cached_property
    def _targets(self) -> dict[str, tuple[Target, ...]]:
        return {}  # by model: most calls ask for one of a few

    def targets(self, model: str, provider: str = "") -> tuple[Target, ...]:
        """Itself, whatever the model."""
        if provider and provider != self.name:
            return ()
        found = self._targets.get(model)
        if found is None:
            name = self.dialect.model_name(model.removeprefix(f"{self.name}/"))
            found = (Target(self, name),)
            if len(self._targets) < _REMEMBERED and len(model) < _LONG:
                self._targets[model] = found
        return found

    def models(self) -> tuple[str, ...]:
        """None by name: it answers for all it has."""
        return ()

    def model_offers(self) -> tuple[ModelOffer, ...]:
        """All its models."""
        return (ModelOffer(self),)


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and the name of the model there.

    Targets of a lower `priority` number are tried first; within one priority `weight` decides how
    often a target comes first.
    """

    provider: Provider
    model: str
    weight: int = 1
    priority: int = 0

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ConfigurationError(f"A target's weight is at least 1, not {self.weight!r}.")


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """Models that are asked for by the provider's own names: all that match, after `prefix`."""

    provider: Provider
    pattern: str = "*"
    prefix: str = ""


class Router(Protocol):
    """Decides who answers. (`offers` may be left out.)"""

    def targets(self, model: str, provider: str = "") -> Sequence[Target]:
        """Who can answer for `model`, in the order to try; `provider` is the caller's wish."""

    def models(self) -> Sequence[str]:
        """The names that can be asked for, as far as the router knows them."""

    def model_offers(self) -> Sequence[ModelOffer]:
        """What else can be asked for, by names that only providers know."""


def _shown(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    scheme, host, path = _URL.fullmatch(url.partition("?")[0]).groups()  # type: ignore[union-attr]
    return f"{scheme or ''}{host.rpartition('@')[2]}{path}"
