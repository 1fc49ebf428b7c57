"""Providers of other installed packages, found through entry points."""

from __future__ import annotations

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.providers.base import Provider

GROUP = "asgi_aiproxy.providers"


def discover() -> dict[str, Provider]:
    """The providers that installed packages register under `asgi_aiproxy.providers`, by name.

    A package does so in its pyproject.toml::

        [project.entry-points."asgi_aiproxy.providers"]
        acme = "acme_ai:ACME"

    Raises ConfigurationError if one cannot be loaded or is not a `Provider`.
    """
    from importlib.metadata import entry_points  # a slow import

    found = {}
    for entry in entry_points(group=GROUP):
        try:
            provider = entry.load()
        except Exception as error:
            raise ConfigurationError(
                f"The provider {entry.name!r} ({entry.value}) cannot be loaded: {error}"
            ) from error
        if not isinstance(provider, Provider):
            raise ConfigurationError(
                f"{entry.value} is registered as a provider, but is not a Provider."
            )
        found[entry.name] = provider
    return found
