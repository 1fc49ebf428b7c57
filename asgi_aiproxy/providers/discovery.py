"""Providers that other packages bring, through entry points."""

from __future__ import annotations

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.providers.base import Provider

GROUP = "asgi_aiproxy.providers"


def discover() -> dict[str, Provider]:
    """The rows that installed packages register under `asgi_aiproxy.providers`, by name.

    A package does so in its pyproject.toml::

        [project.entry-points."asgi_aiproxy.providers"]
        acme = "acme_ai:ACME"

    Raises ConfigurationError if one can not be loaded or is no Provider.
    """
    from importlib.metadata import entry_points  # costs more than all the rest of this package

    found = {}
    for entry in entry_points(group=GROUP):
        try:
            provider = entry.load()
        except Exception as error:
            raise ConfigurationError(
                f"The provider {entry.name!r} ({entry.value}) can not be loaded: {error}"
            ) from error
        if not isinstance(provider, Provider):
            raise ConfigurationError(f"{entry.value} is no Provider, but is registered as one.")
        found[entry.name] = provider
    return found
