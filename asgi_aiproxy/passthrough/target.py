"""The upstream of a proxy: a vendor's API, or any application at a URL."""

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
from asgi_aiproxy.providers.base import HeaderAuth, Provider
from asgi_aiproxy.providers.path_profiles import PATH_PROFILES, PathProfile

Paths = Literal["all"] | Iterable[str]

# Bedrock's model names contain colons. (Some servers ignore the case of paths.)
_MODEL_IN_PATH = re.compile(
    r"/(?:models|deployments|tunedModels|engines)/([^/:]+)(?=[:/]|$)|/model/([^/]+)", re.IGNORECASE
)
_MAX_DEPTH = 4  # the maximum number of times that a path may be percent-encoded


@dataclass(frozen=True)
class ProxyTarget:
    """An upstream and how the proxy treats it. `provider` is None for an application."""

    name: str
    base_url: str
    provider: Provider | None
    policy: HeaderPolicy
    opened: PathPatterns | None  # None: all paths
    stateful: PathPatterns
    calls: PathPatterns
    path_profile: PathProfile

    @cached_property
    def free(self) -> PathPatterns:
        """The paths that call no model."""
        return PathPatterns(self.path_profile.free)

    @cached_property
    def batches(self) -> PathPatterns:
        """The paths where one request makes many calls."""
        return PathPatterns(self.path_profile.batches)

    @cached_property
    def sessions(self) -> PathPatterns:
        """The WebSocket paths whose URL names the model."""
        return PathPatterns(self.path_profile.sessions)

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """The provider's own headers."""
        given = self.provider.headers if self.provider is not None else {}
        return [(name.lower(), value) for name, value in given.items()]

    @property
    def dialect(self) -> InboundDialect:
        """The dialect for errors of the proxy itself."""
        dialect = self.provider.dialect if self.provider is not None else None
        return dialect if isinstance(dialect, InboundDialect) else OPENAI_CHAT

    def operation(self, method: str, path: str) -> str:
        """Return the name of a path below the base URL for usage records. Raises APIError if it is
        not served.
        """
        if self.opened is None:
            return "passthrough"
        name = self.opened.match_name(method, path)
        if name is None:
            raise APIError(
                ErrorKind.NOT_FOUND,
                f"{method} {path} is not served by this gateway.",
                code="not_open",
            )
        return name

    def base(self, key: Key | None) -> str:
        """Return the base URL, without a trailing slash."""
        return ((key.base_url if key is not None else None) or self.base_url).rstrip("/")

    def url(self, path: str, key: Key | None) -> str:
        """Return the URL of a path below the base URL."""
        return self.base(key) + (path or ("/" if self.provider is None else ""))

    def local(self, path: str) -> str:
        """Return a path below the mount as a path below the base URL."""
        return relative_to_base(self.base_url, path) if self.provider is not None else path

    @property
    def signs_bodies(self) -> bool:
        """Whether a request can only be sent once its whole body is known."""
        return self.provider is not None and getattr(self.provider.auth, "reads_body", False)


def models_in_path(path: str) -> tuple[str, ...]:
    """Return the models that a path names, as in Google's, Azure's and Bedrock's APIs; several if
    it is ambiguous.

    The path is also read as a server would that decodes all of it.
    """
    found = _MODEL_IN_PATH.findall(fully_unquoted(path).replace("\\", "/"))
    return tuple(dict.fromkeys(first or second for first, second in found))


def fully_unquoted(path: str) -> str:
    """Return a path without percent-encoding, also if it is encoded several times."""
    for _ in range(_MAX_DEPTH):
        if "%" not in path:
            break
        path = unquote(path)
    return path


def make_target(target: Provider | str, paths: Paths | None) -> ProxyTarget:
    """Return the target for an argument of `PassthroughProxy`. Raises ConfigurationError."""
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
        raise ConfigurationError(f"PassthroughProxy: invalid URL: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(
            "PassthroughProxy: the URL must begin with http:// or https:// and a host, and must "
            "not have a query or fragment."
        )
    if parts.username is not None:
        raise ConfigurationError(
            "PassthroughProxy: the URL must not contain a user or password; use InjectKey for "
            "credentials."
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
                f"PassthroughProxy({provider.name!r}): paths= is required for this provider: "
                "the patterns of the paths to serve."
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
    """Return the provider's headers that a caller must not override, and that of the key."""
    dialect = provider.dialect
    names = dialect.request_headers if isinstance(dialect, InboundDialect) else frozenset[str]()
    own = {name.lower() for name in provider.headers} - names
    if isinstance(provider.auth, HeaderAuth):
        own.add(provider.auth.name.lower())
    return frozenset(own)


def _open_paths(paths: Paths | None) -> PathPatterns | None:
    if paths is None or paths == "all":
        return None
    if isinstance(paths, str):
        raise ConfigurationError(f"paths= must be 'all' or a list of patterns, not {paths!r}.")
    return PathPatterns(paths)


def with_policy(of: ProxyTarget, **changes: object) -> ProxyTarget:
    """Return the same target with these changes of its header policy."""
    return replace(of, policy=replace(of.policy, **changes))  # type: ignore[arg-type]
