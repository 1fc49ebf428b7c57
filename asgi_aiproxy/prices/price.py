"""What a model costs, and what an exchange costs by that: in whole micro-dollars."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage

# Prices are kept in millionths of a micro-dollar, so that $0.01 for a million tokens is whole.
_FINE = 1_000_000


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of requests with more than `above` input tokens; what is None costs as before."""

    above: int
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None


class Price(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a model costs, in US dollars for a million tokens; `request` is for each request.

    Kinds of tokens that have no price of their own cost as much as the others of their side.
    `tiers` say what long requests cost. Raises ConfigurationError if a price is below zero.
    """

    input: float = 0
    output: float = 0
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None
    request: float = 0
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        for row in (self, *self.tiers):
            for name in row.__struct_fields__:
                value = getattr(row, name)
                if isinstance(value, int | float) and not 0 <= value < float("inf"):
                    raise ConfigurationError(f"A price can not be {value}: {name}.")


class Rates(msgspec.Struct, frozen=True):
    """A price made ready to count with: millionths of a micro-dollar for each token."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    audio_input: int
    audio_output: int
    request: int
    tiers: tuple[tuple[int, Rates], ...] = ()  # longest first

    def cost(self, usage: Usage) -> int:
        """What an exchange costs, in micro-dollars; a part of one counts as a whole."""
        rates = self
        for above, dearer in self.tiers:
            if usage.input > above:
                rates = dearer
                break
        written_1h = min(usage.cache_write_1h, usage.cache_write)
        special = usage.cache_read + usage.cache_write + usage.audio_input
        plain_out = usage.output - usage.reasoning - usage.audio_output
        fine = (
            max(usage.input - special, 0) * rates.input
            + usage.cache_read * rates.cache_read
            + (usage.cache_write - written_1h) * rates.cache_write
            + written_1h * rates.cache_write_1h
            + usage.audio_input * rates.audio_input
            + max(plain_out, 0) * rates.output
            + usage.reasoning * rates.reasoning
            + usage.audio_output * rates.audio_output
            + rates.request
        )
        return -(-fine // _FINE)

    def most(self, input: int, output: int) -> int:
        """The most that so many tokens can cost, in micro-dollars, whatever kind they are of."""
        rates = self
        for above, dearer in self.tiers:
            if input > above:
                rates = dearer
                break
        dearest_in = max(rates.input, rates.cache_write)
        dearest_out = max(rates.output, rates.reasoning)
        return -(-(input * dearest_in + output * dearest_out + rates.request) // _FINE)


def rates(price: Price) -> Rates:
    """A price made ready to count with."""
    base = _row(price, None)
    tiers = sorted(price.tiers, key=lambda tier: -tier.above)
    return msgspec.structs.replace(
        base, tiers=tuple((tier.above, _row(price, tier)) for tier in tiers)
    )


def _row(price: Price, tier: Tier | None) -> Rates:
    def fine(name: str, otherwise: int = 0) -> int:
        value = getattr(tier, name, None)
        if value is None:
            value = getattr(price, name)
        return otherwise if value is None else int(Decimal(str(value)) * _FINE)

    read = fine("input")
    written = fine("output")
    cached = fine("cache_write", read)
    return Rates(
        input=read,
        output=written,
        cache_read=fine("cache_read", read),
        cache_write=cached,
        cache_write_1h=fine("cache_write_1h", cached),
        reasoning=fine("reasoning", written),
        audio_input=fine("audio_input", read),
        audio_output=fine("audio_output", written),
        request=int(Decimal(str(price.request)) * _FINE * 1_000_000),
    )
