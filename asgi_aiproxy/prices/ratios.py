"""`Ratios`: prices in quota units, by ratios of groups and models."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.patterns import matches_pattern

_MILLION = 1_000_000
_NO_UNITS = Usage()


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ratio of a model, and of its completion tokens to its prompt tokens.

    Raises ConfigurationError if a ratio is negative or infinite.
    """

    model: float
    completion: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ConfigurationError(f"{name}: a ratio must be a number >= 0, got {value}.")


class Ratios:
    """Prices in quota units: `group x model x (prompt + completion x completion ratio)`.

    `models` are ratios by model or `provider/model`, also as patterns (`*`, `?`); exact names have
    precedence. With a ratio of 1 a prompt token costs one unit. `units_per_usd` is the value of a
    unit (500,000 per dollar: a ratio of 1 is $2 per million tokens). `unknown` is the ratio of all
    other models. Without it they have none, and callers with a budget in units cannot use them.

    Raises ConfigurationError if a ratio is invalid or `units_per_usd` is below 1.
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
        self._models = {name: _in_millionths(ratio) for name, ratio in models.items()}
        self._patterns = [
            (name, _in_millionths(r)) for name, r in models.items() if set(name) & {*"*?"}
        ]
        self._unknown = _in_millionths(unknown) if unknown is not None else None

    def __repr__(self) -> str:
        return f"Ratios({len(self._models)} models)"

    def max_cost(
        self,
        provider: str,
        model: str,
        input: int,
        output: int,
        ratio: int,
        units: Usage = _NO_UNITS,
    ) -> int | None:
        """The maximum cost of so many tokens, in units; None if the model has no ratio.

        `ratio` is the price ratio of the caller's group, in millionths. Images, characters, seconds
        and search units (`units`) cost nothing.
        """
        return self._units(provider, model, input, output, ratio)

    def max_output(self, provider: str, model: str) -> int | None:
        """None: ratios have no output limits."""
        return None

    def has_units(self, provider: str, model: str) -> bool:
        """False: ratios are of tokens."""
        return False

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """The cost of a call, in units; None if the model has no ratio."""
        return self._units(provider, model, usage.input, usage.output, ratio)

    def usd(self, units: int) -> float:
        """The value of units in US dollars."""
        return units / self.units_per_usd

    def _units(self, provider: str, model: str, read: int, written: int, ratio: int) -> int | None:
        found = self._find(provider, model)
        if found is None:
            return None
        of_model, of_completion = found
        amount = ratio * of_model * (read * _MILLION + written * of_completion)
        return -(-amount // _MILLION**3)

    def _find(self, provider: str, model: str) -> tuple[int, int] | None:
        full = f"{provider}/{model}"
        for name in (full, model):
            if name in self._models:
                return self._models[name]
        for pattern, found in self._patterns:
            if matches_pattern(pattern, full) or matches_pattern(pattern, model):
                return found
        return self._unknown


def _in_millionths(ratio: Ratio | float) -> tuple[int, int]:
    """The ratios of a model and of its completion, in millionths."""
    pair = ratio if isinstance(ratio, Ratio) else Ratio(ratio)
    return millionths(pair.model), millionths(pair.completion)


@lru_cache(maxsize=256)
def millionths(ratio: float) -> int:
    """A ratio in millionths, as an integer."""
    return int(Decimal(str(ratio)) * _MILLION)
