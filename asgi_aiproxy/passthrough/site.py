"""Where a proxy leads: a vendor's API, or any application at a URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal
from urllib.parse import unquote, urlsplit

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.dialects.base import Face
from asgi_aiproxy.errors import APIError, ConfigurationError, Kind
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.headers import INTERNAL, VENDOR, Policy
from asgi_aiproxy.passthrough.homes import Homes, References
from asgi_aiproxy.passthrough.paths import Opened, below
from asgi_aiproxy.passthrough.surfaces import SURFACES, Surface
from asgi_aiproxy.providers.base import Provider

Paths = Literal["all"] | Iterable[str]

# Bedrock's names hold colons. (Some servers do not heed the case of paths.)
_MODEL_IN_PATH = re.compile(
    r"/(?:models|deployments|tunedModels|engines)/([^/:]+)(?=[:/]|$)|/model/([^/]+)", re.IGNORECASE
)
_DEEPEST = 4  # so often something may have been encoded


@dataclass(frozen=True)
class Site:
    """An upstream and what the proxy heeds of it. `provider` is None for an application."""

    name: str
    base_url: str
    provider: Provider | None
    policy: Policy
    opened: Opened | None  # None: everything
    stateful: Opened
    calls: Opened
    surface: Surface

    @cached_property
    def free(self) -> Opened:
        """Where no model is called."""
        return Opened(self.surface.free)

    @cached_property
    def batches(self) -> Opened:
        """Where one request makes many calls."""
        return Opened(self.surface.batches)

    @cached_property
    def sessions(self) -> Opened:
        """The WebSockets whose URL names their model."""
        return Opened(self.surface.sessions)

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """The provider's own headers."""
        given = self.provider.headers if self.provider is not None else {}
        return [(name.lower(), value) for name, value in given.items()]

    @property
    def face(self) -> Face:
        """The language for what the proxy itself has to say."""
        dialect = self.provider.dialect if self.provider is not None else None
        return dialect if isinstance(dialect, Face) else OPENAI_CHAT

    def operation(self, method: str, path: str) -> str:
        """What a path below the base is called in records. Raises APIError if it is not open."""
        if self.opened is None:
            return "passthrough"
        name = self.opened.name(method, path)
        if name is None:
            raise APIError(Kind.NOT_FOUND, f"{method} {path} is not open here.", code="not_open")
        return name

    def base(self, key: Key | None) -> str:
        """The base URL, without a slash at its end."""
        return ((key.base_url if key is not None else None) or self.base_url).rstrip("/")

    def url(self, path: str, key: Key | None) -> str:
        """Where a path below the base URL leads."""
        return self.base(key) + (path or ("/" if self.provider is None else ""))

    def local(self, path: str) -> str:
        """A path below the mount as one below the base URL."""
        return below(self.base_url, path) if self.provider is not None else path

    @property
    def signs_bodies(self) -> bool:
        """Whether a request can only leave when all of its body is known."""
        return self.provider is not None and getattr(self.provider.auth, "reads_body", False)

    @cached_property
    def references(self) -> References:
        """What in JSON bodies names what only one key finds again."""
        return References(self.surface.references)

    @cached_property
    def homes(self) -> Homes | None:
        """Where that is; None without keys."""
        keys = self.provider.keys if self.provider is not None else None
        return Homes(keys) if keys is not None else None


def models_in(path: str) -> tuple[str, ...]:
    """The models that a path names, as Google's, Azure's and Bedrock's do; several if it is
    ambiguous.

    The path is read as a server might that decodes all of it.
    """
    for _ in range(_DEEPEST):
        if "%" not in path:
            break
        path = unquote(path)
    found = _MODEL_IN_PATH.findall(path.replace("\\", "/"))
    return tuple(dict.fromkeys(one or other for one, other in found))


def site(target: Provider | str, paths: Paths | None) -> Site:
    """What `PassthroughProxy` is told. Raises ConfigurationError."""
    if isinstance(target, Provider):
        return _vendor(target, paths)
    if not isinstance(target, str):
        raise ConfigurationError(
            f"PassthroughProxy takes a Provider or a URL, not {type(target).__name__}."
        )
    try:
        parts = urlsplit(target)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"PassthroughProxy: the URL is none: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(
            "PassthroughProxy: a URL begins with http:// or https:// and a host, and ends with its "
            "path."
        )
    if parts.username is not None:
        raise ConfigurationError(
            "PassthroughProxy: a URL holds no user or password; see InjectKey for credentials."
        )
    return Site(
        name=parts.hostname,
        base_url=target,
        provider=None,
        policy=INTERNAL,
        opened=_opened(paths),
        stateful=Opened(()),
        calls=Opened(()),
        surface=Surface(()),
    )


def _vendor(provider: Provider, paths: Paths | None) -> Site:
    surface = SURFACES.get(provider.surface or provider.dialect.name)
    if surface is None:
        if paths is None:
            raise ConfigurationError(
                f"PassthroughProxy({provider.name!r}): say with paths= what of it is open."
            )
        surface = Surface(())
    return Site(
        name=provider.name,
        base_url=provider.base_url,
        provider=provider,
        policy=replace(VENDOR, request=VENDOR.request | _firm(provider)),
        opened=Opened(surface.open) if paths is None else _opened(paths),
        stateful=Opened(surface.stateful),
        calls=Opened(surface.calls),
        surface=surface,
    )


def _firm(provider: Provider) -> frozenset[str]:
    """Those of the provider's own headers that a caller may not replace by its own."""
    dialect = provider.dialect
    theirs = dialect.request_headers if isinstance(dialect, Face) else frozenset[str]()
    return frozenset(name.lower() for name in provider.headers if name.lower() not in theirs)


def _opened(paths: Paths | None) -> Opened | None:
    if paths is None or paths == "all":
        return None
    if isinstance(paths, str):
        raise ConfigurationError(f"paths= is 'all' or several patterns, not {paths!r}.")
    return Opened(paths)


def with_policy(of: Site, **changes: object) -> Site:
    """The same site under a policy with these changes."""
    return replace(of, policy=replace(of.policy, **changes))  # type: ignore[arg-type]
