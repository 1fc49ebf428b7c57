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
    `max_output` is the most tokens that the model writes where a request does not limit it; by
    that, a budget is reserved. `tiers` say what long requests cost. Raises ConfigurationError if a
    price is below zero.
    """

    input: float = 0
    output: float = 0
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None
    image_input: float | None = None
    image_output: float | None = None
    max_output: int | None = None
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
    image_input: int
    image_output: int
    request: int
    max_output: int | None = None
    tiers: tuple[tuple[int, Rates], ...] = ()  # longest first

    def cost(self, usage: Usage) -> int:
        """What an exchange costs, in micro-dollars; a part of one counts as a whole."""
        rates = self
        for above, dearer in self.tiers:
            if usage.input > above:
                rates = dearer
                break
        # Some tell what came from a cache beside the rest: then the parts are more than the whole.
        cached = usage.cache_read + usage.cache_write
        written_1h = min(usage.cache_write_1h, usage.cache_write)
        plain_in = max(usage.input - cached, 0)
        heard = min(usage.audio_input, plain_in)  # (a cached one costs as that)
        seen = min(usage.image_input, plain_in - heard)
        plain_out = max(usage.output - usage.reasoning, 0)
        spoken = min(usage.audio_output, plain_out)
        drawn = min(usage.image_output, plain_out - spoken)
        fine = (
            (plain_in - heard - seen) * rates.input
            + usage.cache_read * rates.cache_read
            + (usage.cache_write - written_1h) * rates.cache_write
            + written_1h * rates.cache_write_1h
            + heard * rates.audio_input
            + seen * rates.image_input
            + (plain_out - spoken - drawn) * rates.output
            + usage.reasoning * rates.reasoning
            + spoken * rates.audio_output
            + drawn * rates.image_output
            + rates.request
        )
        return -(-fine // _FINE)

    def max_cost(self, input: int, output: int) -> int:
        """The most that so many tokens can cost, in micro-dollars, whatever kind they are of.

        Fewer can not cost more: all tiers count that they can be in.
        """
        reached = [self, *(dearer for above, dearer in self.tiers if input > above)]
        into = max(rates.dearest_in for rates in reached)
        out = max(rates.dearest_out for rates in reached)
        return -(-(input * into + output * out + self.request) // _FINE)

    @property
    def dearest_in(self) -> int:
        """The most that a token of input costs, whatever kind it is of."""
        return max(
            *(self.input, self.cache_read, self.cache_write, self.cache_write_1h),
            *(self.audio_input, self.image_input),
        )

    @property
    def dearest_out(self) -> int:
        """The most that a token of output costs."""
        return max(self.output, self.reasoning, self.audio_output, self.image_output)


def to_rates(price: Price) -> Rates:
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
        image_input=fine("image_input", read),
        image_output=fine("image_output", written),
        max_output=price.max_output,
        request=int(Decimal(str(price.request)) * _FINE * 1_000_000),
    )
