"""`Ratios`: prices in quota units, by ratios of groups and models."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.patterns import matches_pattern

_FINE = 1_000_000


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's ratio, and that of its completion to its prompt."""

    model: float
    completion: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.model < float("inf") or not 0 <= self.completion < float("inf"):
            raise ConfigurationError(f"A ratio can not be below zero: {self}.")


class Ratios:
    """Prices in quota units: `group x model x (prompt + completion x completion ratio)`.

    `models` are ratios by model or `provider/model`, also as patterns; those without a pattern go
    first. A ratio of 1 makes one unit of a prompt token. `units_per_usd` tells what a unit is worth
    (500,000 to the dollar: a ratio of 1 is $2 for a million tokens). `unknown` is the ratio of
    models that are not named; without it they have none, and cannot be used by those who have a
    budget in units.
    """

    unit = "units"

    def __init__(
        self,
        models: Mapping[str, Ratio | float],
        *,
        units_per_usd: int = 500_000,
        unknown: Ratio | float | None = None,
    ) -> None:
        if units_per_usd < 1:
            raise ConfigurationError("units_per_usd must be at least 1.")
        self.units_per_usd = units_per_usd
        self._models = {name: _fine(ratio) for name, ratio in models.items()}
        self._patterns = [(name, _fine(r)) for name, r in models.items() if set(name) & {*"*?"}]
        self._unknown = _fine(unknown) if unknown is not None else None

    def __repr__(self) -> str:
        return f"Ratios({len(self._models)} models)"

    def max_cost(
        self, provider: str, model: str, input: int, output: int, ratio: int
    ) -> int | None:
        """The most that so many tokens can cost, in units; None if the model has no ratio.

        `ratio` is that of the caller's group, in millionths.
        """
        return self._units(provider, model, input, output, ratio)

    def max_output(self, provider: str, model: str) -> int | None:
        """Nothing is known of that."""
        return None

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """What an exchange costs, in units; None if the model has no ratio."""
        return self._units(provider, model, usage.input, usage.output, ratio)

    def usd(self, units: int) -> float:
        """What so many units are worth, in dollars."""
        return units / self.units_per_usd

    def _units(self, provider: str, model: str, read: int, written: int, ratio: int) -> int | None:
        found = self._find(provider, model)
        if found is None:
            return None
        of_model, of_completion = found
        fine = ratio * of_model * (read * _FINE + written * of_completion)
        return -(-fine // _FINE**3)

    def _find(self, provider: str, model: str) -> tuple[int, int] | None:
        full = f"{provider}/{model}"
        for name in (full, model):
            if name in self._models:
                return self._models[name]
        for pattern, found in self._patterns:
            if matches_pattern(pattern, full) or matches_pattern(pattern, model):
                return found
        return self._unknown


def _fine(ratio: Ratio | float) -> tuple[int, int]:
    """A ratio in millionths."""
    made = ratio if isinstance(ratio, Ratio) else Ratio(ratio)
    return millionths(made.model), millionths(made.completion)


@lru_cache(maxsize=256)
def millionths(ratio: float) -> int:
    """A ratio as a whole number of millionths."""
    return int(Decimal(str(ratio)) * _FINE)
