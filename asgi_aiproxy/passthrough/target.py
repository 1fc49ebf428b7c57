"""Where a proxy leads: a vendor's API, or any application at a URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal
from urllib.parse import unquote, urlsplit

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.headers import INTERNAL, VENDOR, HeaderPolicy
from asgi_aiproxy.passthrough.path_patterns import PathPatterns, relative_to_base
from asgi_aiproxy.passthrough.resource_affinity import ResourceAffinity, ResourceReferences
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.providers.path_profiles import PATH_PROFILES, PathProfile

Paths = Literal["all"] | Iterable[str]

# Bedrock's names hold colons. (Some servers do not heed the case of paths.)
_MODEL_IN_PATH = re.compile(
    r"/(?:models|deployments|tunedModels|engines)/([^/:]+)(?=[:/]|$)|/model/([^/]+)", re.IGNORECASE
)
_MAX_DEPTH = 4  # so often something may have been encoded


@dataclass(frozen=True)
class ProxyTarget:
    """An upstream and what the proxy heeds of it. `provider` is None for an application."""

    name: str
    base_url: str
    provider: Provider | None
    policy: HeaderPolicy
    opened: PathPatterns | None  # None: everything
    stateful: PathPatterns
    calls: PathPatterns
    path_profile: PathProfile

    @cached_property
    def free(self) -> PathPatterns:
        """Where no model is called."""
        return PathPatterns(self.path_profile.free)

    @cached_property
    def batches(self) -> PathPatterns:
        """Where one request makes many calls."""
        return PathPatterns(self.path_profile.batches)

    @cached_property
    def sessions(self) -> PathPatterns:
        """The WebSockets whose URL names their model."""
        return PathPatterns(self.path_profile.sessions)

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """The provider's own headers."""
        given = self.provider.headers if self.provider is not None else {}
        return [(name.lower(), value) for name, value in given.items()]

    @property
    def dialect(self) -> InboundDialect:
        """The language for what the proxy itself has to say."""
        dialect = self.provider.dialect if self.provider is not None else None
        return dialect if isinstance(dialect, InboundDialect) else OPENAI_CHAT

    def operation(self, method: str, path: str) -> str:
        """What a path below the base is called in records. Raises APIError if it is not open."""
        if self.opened is None:
            return "passthrough"
        name = self.opened.match_name(method, path)
        if name is None:
            raise APIError(
                ErrorKind.NOT_FOUND, f"{method} {path} is not open here.", code="not_open"
            )
        return name

    def base(self, key: Key | None) -> str:
        """The base URL, without a slash at its end."""
        return ((key.base_url if key is not None else None) or self.base_url).rstrip("/")

    def url(self, path: str, key: Key | None) -> str:
        """Where a path below the base URL leads."""
        return self.base(key) + (path or ("/" if self.provider is None else ""))

    def local(self, path: str) -> str:
        """A path below the mount as one below the base URL."""
        return relative_to_base(self.base_url, path) if self.provider is not None else path

    @property
    def signs_bodies(self) -> bool:
        """Whether a request can only leave when all of its body is known."""
        return self.provider is not None and getattr(self.provider.auth, "reads_body", False)

    @cached_property
    def references(self) -> ResourceReferences:
        """What in JSON bodies names what only one key finds again."""
        return ResourceReferences(self.path_profile.references)

    @cached_property
    def resource_affinity(self) -> ResourceAffinity | None:
        """Where that is; None without keys."""
        keys = self.provider.keys if self.provider is not None else None
        return ResourceAffinity(keys) if keys is not None else None


def models_in_path(path: str) -> tuple[str, ...]:
    """The models that a path names, as Google's, Azure's and Bedrock's do; several if it is
    ambiguous.

    The path is read as a server might that decodes all of it.
    """
    for _ in range(_MAX_DEPTH):
        if "%" not in path:
            break
        path = unquote(path)
    found = _MODEL_IN_PATH.findall(path.replace("\\", "/"))
    return tuple(dict.fromkeys(first or second for first, second in found))


def make_target(target: Provider | str, paths: Paths | None) -> ProxyTarget:
    """What `PassthroughProxy` is told. Raises ConfigurationError."""
    if isinstance(target, Provider):
        return _vendor_target(target, paths)
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
    return ProxyTarget(
        name=parts.hostname,
        base_url=target,
        provider=None,
        policy=INTERNAL,
        opened=_open_paths(paths),
        stateful=PathPatterns(()),
        calls=PathPatterns(()),
        path_profile=PathProfile(()),
    )


def _vendor_target(provider: Provider, paths: Paths | None) -> ProxyTarget:
    path_profile = PATH_PROFILES.get(provider.path_profile or provider.dialect.name)
    if path_profile is None:
        if paths is None:
            raise ConfigurationError(
                f"PassthroughProxy({provider.name!r}): say with paths= what of it is open."
            )
        path_profile = PathProfile(())
    return ProxyTarget(
        name=provider.name,
        base_url=provider.base_url,
        provider=provider,
        policy=replace(VENDOR, request=VENDOR.request | _protected_headers(provider)),
        opened=PathPatterns(path_profile.open) if paths is None else _open_paths(paths),
        stateful=PathPatterns(path_profile.stateful),
        calls=PathPatterns(path_profile.calls),
        path_profile=path_profile,
    )


def _protected_headers(provider: Provider) -> frozenset[str]:
    """Those of the provider's own headers that a caller may not replace by its own."""
    dialect = provider.dialect
    theirs = dialect.request_headers if isinstance(dialect, InboundDialect) else frozenset[str]()
    return frozenset(name.lower() for name in provider.headers if name.lower() not in theirs)


def _open_paths(paths: Paths | None) -> PathPatterns | None:
    if paths is None or paths == "all":
        return None
    if isinstance(paths, str):
        raise ConfigurationError(f"paths= is 'all' or several patterns, not {paths!r}.")
    return PathPatterns(paths)


def with_policy(of: ProxyTarget, **changes: object) -> ProxyTarget:
    """The same site under a policy with these changes."""
    return replace(of, policy=replace(of.policy, **changes))  # type: ignore[arg-type]
