"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.key import patterns, serves

# Where an ASGI scope carries its principal.
SCOPE_KEY = "asgi_aiproxy.principal"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as a token or the host application knows it.

    `models` are patterns of the model names it may use, as it writes them (none: all).
    """

    id: str
    name: str = ""
    models: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise ConfigurationError(f"A principal's id is a text, not {type(self.id).__name__}.")
        object.__setattr__(self, "models", patterns(self.models))

    def may_use(self, model: str) -> bool:
        """Whether this caller may ask for `model`."""
        return not self.models or serves(self.models, model)


ANONYMOUS = Principal("")
