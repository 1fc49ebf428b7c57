"""The price of a model, and the cost of a call in whole micro-dollars."""

from __future__ import annotations

from decimal import Decimal
from operator import attrgetter, mul

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage

# Prices are kept in millionths of a micro-dollar, so that $0.01 for a million tokens is whole.
_MILLION = 1_000_000
_NO_UNITS = Usage()


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of requests with more than `above` input tokens; None keeps the base price."""

    above: int
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None


class Price(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The price of a model in US dollars per million tokens.

    `request` is in dollars per request, `image` per image, `character` per million characters,
    `minute` per minute of audio, and `search` per search unit (of rerank).

    A kind of token without its own price costs as much as `input` or `output`. `max_output` is the
    maximum number of output tokens of the model if a request has no limit; it is used to reserve
    budgets. `tiers` are the prices of long requests. Raises ConfigurationError if a price is
    negative or infinite.
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
    image: float = 0
    character: float = 0
    minute: float = 0
    search: float = 0
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        for row in (self, *self.tiers):
            for name in row.__struct_fields__:
                value = getattr(row, name)
                if isinstance(value, int | float) and not 0 <= value < float("inf"):
                    raise ConfigurationError(f"{name}: a price must be a number >= 0, got {value}.")


# What has a price, in the order of `Rates.quantities`.
KINDS = (
    *("input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "image_input"),
    *("output", "reasoning", "audio_output", "image_output"),
    *("request", "image", "character", "second", "search"),
)
_rates_of = attrgetter(*KINDS)


class Rates(msgspec.Struct, frozen=True, omit_defaults=True):
    """A price for calculations: millionths of a micro-dollar per token, request, image, character,
    second and search unit. `source` is where it comes from.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    request: int = 0
    image: int = 0
    character: int = 0
    second: int = 0
    search: int = 0
    max_output: int | None = None
    tiers: tuple[tuple[int, Rates], ...] = ()  # highest `above` first
    source: str = ""

    def cost(self, usage: Usage) -> int:
        """The cost of a call in micro-dollars, rounded up."""
        return self.row(usage).row_cost(usage)

    def row(self, usage: Usage) -> Rates:
        """The rates for a request of this length."""
        for above, dearer in self.tiers:
            if usage.input > above:
                return dearer
        return self

    def row_cost(self, usage: Usage) -> int:
        """The cost of a call by these rates, whatever its length."""
        fine: int = sum(map(mul, self.quantities(usage), _rates_of(self)))
        return -(-fine // _MILLION)

    def quantities(self, usage: Usage) -> tuple[int, ...]:
        """How much of each of KINDS is charged for a usage."""
        # Some vendors do not include cached tokens in the input: the parts exceed the total then.
        cached = usage.cache_read + usage.cache_write
        written_1h = min(usage.cache_write_1h, usage.cache_write)
        plain_in = max(usage.input - cached, 0)
        heard = min(usage.audio_input, plain_in)  # cached audio costs as cached input
        seen = min(usage.image_input, plain_in - heard)
        plain_out = max(usage.output - usage.reasoning, 0)
        spoken = min(usage.audio_output, plain_out)
        drawn = min(usage.image_output, plain_out - spoken)
        return (
            *(plain_in - heard - seen, usage.cache_read, usage.cache_write - written_1h),
            *(written_1h, heard, seen),
            *(plain_out - spoken - drawn, usage.reasoning, spoken, drawn),
            *(1, usage.images, usage.characters, usage.audio_seconds, usage.search_units),
        )

    @property
    def has_units(self) -> bool:
        """Whether something beside tokens and requests has a price."""
        return bool(self.image or self.character or self.second or self.search)

    def _fine_units(self, usage: Usage) -> int:
        return (
            self.request
            + usage.images * self.image
            + usage.characters * self.character
            + usage.audio_seconds * self.second
            + usage.search_units * self.search
        )

    def max_cost(self, input: int, output: int, units: Usage = _NO_UNITS) -> int:
        """The maximum cost of so many tokens of any kind, in micro-dollars, rounded up.

        `units` is what is not counted in tokens. Fewer tokens never cost more: all tiers up to
        `input` are considered.
        """
        reached = [self, *(dearer for above, dearer in self.tiers if input > above)]
        into = max(rates.dearest_in for rates in reached)
        out = max(rates.dearest_out for rates in reached)
        return -(-(input * into + output * out + self._fine_units(units)) // _MILLION)

    @property
    def dearest_in(self) -> int:
        """The highest price of an input token of any kind."""
        return max(
            *(self.input, self.cache_read, self.cache_write, self.cache_write_1h),
            *(self.audio_input, self.image_input),
        )

    @property
    def dearest_out(self) -> int:
        """The highest price of an output token of any kind."""
        return max(self.output, self.reasoning, self.audio_output, self.image_output)


def _each(dollars: float) -> int:
    """The price of one kind of unit, in millionths of a micro-dollar."""
    return int(Decimal(str(dollars)) * _MILLION * _MILLION)


def to_rates(price: Price, source: str = "") -> Rates:
    """Convert a price for calculations. `source` is where it comes from."""
    base = msgspec.structs.replace(_row(price, None), source=source)
    tiers = sorted(price.tiers, key=lambda tier: -tier.above)
    return msgspec.structs.replace(
        base, tiers=tuple((tier.above, _row(price, tier)) for tier in tiers)
    )


def _row(price: Price, tier: Tier | None) -> Rates:
    def fine(name: str, otherwise: int = 0) -> int:
        value = getattr(tier, name, None)
        if value is None:
            value = getattr(price, name)
        return otherwise if value is None else int(Decimal(str(value)) * _MILLION)

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
        request=_each(price.request),
        image=_each(price.image),
        character=fine("character"),
        second=-(-_each(price.minute) // 60),
        search=_each(price.search),
    )
