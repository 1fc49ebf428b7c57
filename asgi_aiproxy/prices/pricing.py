"""What `Prices` and `Ratios` have in common."""

from __future__ import annotations

from typing import Protocol

from asgi_aiproxy.messages import Usage


class Pricing(Protocol):
    """Says what exchanges cost, in whole units of its own (`usd`: micro-dollars)."""

    unit: str

    def max_cost(
        self, provider: str, model: str, input: int, output: int, ratio: int
    ) -> int | None:
        """The most that so many tokens can cost; None if there is no price.

        `ratio` is what the caller's group pays, in millionths.
        """

    def max_output(self, provider: str, model: str) -> int | None:
        """The most tokens that a model writes, if that is known."""

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """What an exchange costs; None if there is no price."""
