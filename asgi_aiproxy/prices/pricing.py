"""`Pricing`: the common interface of `Prices` and `Ratios`."""

from __future__ import annotations

from typing import Protocol

from asgi_aiproxy.messages import Usage


class Pricing(Protocol):
    """Calculates the cost of calls, in whole amounts of `unit` (`usd`: micro-dollars)."""

    unit: str

    def max_cost(
        self, provider: str, model: str, input: int, output: int, ratio: int, units: Usage = ...
    ) -> int | None:
        """The maximum cost of so many tokens, and of `units`; None if there is no price.

        `ratio` is the price ratio of the caller's group, in millionths.
        """

    def max_output(self, provider: str, model: str) -> int | None:
        """The maximum number of output tokens of a model; None if unknown."""

    def has_units(self, provider: str, model: str) -> bool:
        """Whether a model has a price for something beside tokens and requests."""

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """The cost of a call; None if there is no price."""
