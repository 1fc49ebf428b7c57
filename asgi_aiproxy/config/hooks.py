"""The hooks that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy.config.error_messages import toml_path
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.hooks import Hook, PromptMarkers, TextReplacements, TextRule
from asgi_aiproxy.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from asgi_aiproxy.config.settings import Settings


def make_hooks(settings: Settings) -> list[Hook]:
    """The hooks of the shim, in order. Raises ConfigurationError."""
    hooks: list[Hook] = (
        [Tracing(sampling_ratio=settings.otel_sampling_ratio)] if settings.otel else []
    )
    if settings.markers:
        hooks.append(PromptMarkers())
    rules = []
    for number, given in enumerate(settings.matchers):
        try:
            rules.append(
                TextRule(
                    find=given.find,
                    end=given.end,
                    length=given.len,
                    replace=given.content,
                    description=given.desc,
                )
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{toml_path(('matchers', number))}: {error}") from None
    return [*hooks, TextReplacements(*rules)] if rules else hooks
