"""Providers and APIs of other installed packages, found through entry points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.operations.base import AnyClientOperation, ClientOperation
from asgi_aiproxy.providers.base import Provider

GROUP = "asgi_aiproxy.providers"
API_GROUP = "asgi_aiproxy.apis"


def discover() -> dict[str, Provider]:
    """The providers that installed packages register under `asgi_aiproxy.providers`, by name.

    A package does so in its pyproject.toml::

        [project.entry-points."asgi_aiproxy.providers"]
        acme = "acme_ai:ACME"

    Raises ConfigurationError if one cannot be loaded or is not a `Provider`.
    """
    found = {}
    for name, value, provider in _load(GROUP, "provider"):
        if not isinstance(provider, Provider):
            raise ConfigurationError(f"{value} is registered as a provider, but is not a Provider.")
        found[name] = provider
    return found


def discover_apis() -> list[InboundDialect | AnyClientOperation]:
    """The APIs for clients that installed packages register under `asgi_aiproxy.apis`.

    These are dialects and operations, as a shim takes them in `apis`::

        [project.entry-points."asgi_aiproxy.apis"]
        acme = "acme_ai:ACME_API"

    Raises ConfigurationError if one cannot be loaded or is neither an `InboundDialect` nor a
    `ClientOperation`.
    """
    found: list[InboundDialect | AnyClientOperation] = []
    for _, value, api in _load(API_GROUP, "API"):
        if not isinstance(api, InboundDialect | ClientOperation):
            raise ConfigurationError(
                f"{value} is registered as an API, but is neither an InboundDialect nor a "
                "ClientOperation."
            )
        found.append(api)
    return found


def _load(group: str, what: str) -> Iterator[tuple[str, str, Any]]:
    """The name and value of each entry point of a group, and what it names."""
    from importlib.metadata import entry_points  # a slow import

    for entry in entry_points(group=group):
        try:
            loaded = entry.load()
        except Exception as error:
            raise ConfigurationError(
                f"The {what} {entry.name!r} ({entry.value}) cannot be loaded: {error}"
            ) from error
        yield entry.name, entry.value, loaded
