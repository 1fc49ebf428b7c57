"""`Prices`: prices of models, from the package genai-prices and your own."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asgi_aiproxy.dialects.model_facts import ModelFacts, ModelPrice
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.patterns import matches_pattern
from asgi_aiproxy.prices.price import Price, Rates, Tier, to_rates
from asgi_aiproxy.prices.updates import HeldPrices, PriceChange, month_of

# Local servers have no list prices, even if another vendor has a model of the same name.
_LOCAL_PROVIDERS = frozenset({"ollama", "vllm", "lmstudio", "llamacpp", "tgi", "sglang"})
# Providers whose names the list spells differently.
_LISTED_NAMES = {"bedrock-anthropic": "aws", "moonshot": "moonshotai", "voyage": "voyageai"}
# Some prices depend on the time of day.
_NO_UNITS = Usage()
_CACHE_SECONDS = 60.0
_PER_MILLION = 1_000_000  # of the unit of `Rates`, in a dollar per million tokens
_MAX_CACHED = 10_000


LIST_SOURCE = "genai-prices"
NO_LIST = (
    "List prices come from the package genai-prices, which is not installed: "
    "pip install 'asgi-aiproxy[prices]'. Or give your own: Prices({...}, listed=False)."
)


def list_installed() -> bool:
    """Whether the package genai-prices is installed. It is not imported."""
    return importlib.util.find_spec("genai_prices") is not None


class Prices:
    """Prices of models in US dollars.

    `own` are your own prices, by model or `provider/model`, also as patterns (`*`, `?`). They have
    precedence, exact names before patterns. Other models are looked up in the package genai-prices
    (extra `prices`), unless `listed` is False; it works offline and is imported on first use.
    `unknown` is the price of all other models. Without it they have no price, and callers with a
    budget cannot use them. `clock` returns Unix seconds.

    Raises ConfigurationError if a price is invalid, or `listed` is True without genai-prices.
    """

    unit = "usd"

    def __init__(
        self,
        own: Mapping[str, Price] | None = None,
        *,
        listed: bool = True,
        unknown: Price | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for pattern, price in (own or {}).items():
            if not isinstance(price, Price):
                raise ConfigurationError(
                    f"The price of {pattern!r} must be a Price, not {type(price).__name__}."
                )
        if listed and not list_installed():
            raise ConfigurationError(NO_LIST)
        self._own = {name: to_rates(price, f"own:{name}") for name, price in (own or {}).items()}
        self._patterns = [(name, found) for name, found in self._own.items() if set(name) & {*"*?"}]
        self._listed = _PriceList(clock) if listed else None
        self._unknown = to_rates(unknown, "own:unknown") if unknown is not None else None
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, Rates | None]] = {}

    def __repr__(self) -> str:
        return f"Prices({len(self._own)} of its own)"

    def load(self) -> None:
        """Read the price list now, which takes about 0.25 s, instead of on first use."""
        if self._listed is not None:
            self._listed("openai", "gpt-4o", self._clock())

    def find(self, provider: str, model: str) -> Rates | None:
        """The price of a model at a provider; None if there is no price."""
        now = self._clock()
        known = self._known.get((provider, model))
        if known is not None and known[0] > now:
            return known[1]
        found = self._own_price(provider, model)
        if found is None and self._listed is not None and provider not in _LOCAL_PROVIDERS:
            found = self._listed(provider, model, now)
        if found is None:
            found = self._unknown
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        self._known[provider, model] = now + _CACHE_SECONDS, found
        return found

    def max_cost(
        self,
        provider: str,
        model: str,
        input: int,
        output: int,
        ratio: int,
        units: Usage = _NO_UNITS,
    ) -> int | None:
        """The maximum cost of so many tokens, and of `units`, in micro-dollars; None if there is no
        price.

        `ratio` is the price ratio of the caller's group, in millionths.
        """
        found = self.find(provider, model)
        return None if found is None else apply_ratio(found.max_cost(input, output, units), ratio)

    def max_output(self, provider: str, model: str) -> int | None:
        """The maximum number of output tokens of a model; None if its price has none."""
        found = self.find(provider, model)
        return found.max_output if found is not None else None

    def use_list(self, latest: Any) -> None:
        """Use a newer list of genai-prices; see `PriceUpdates`."""
        if self._listed is not None:
            self._listed.update(latest)
            self._known.clear()

    @property
    def changes(self) -> Sequence[PriceChange]:
        """The changes of list prices since the start, of models that were used; newest first."""
        found = self._listed.held.changes.values() if self._listed is not None else ()
        return sorted(found, key=lambda change: -change.at)

    def facts(self, provider: str, model: str) -> ModelFacts:
        """The context length, output limit and prices of a model, and where they are from."""
        found, listed = self.find(provider, model), None
        if self._listed is not None and provider not in _LOCAL_PROVIDERS:
            listed = self._listed.context(provider, model)
        if found is None:
            return ModelFacts(context=listed)
        source, as_of = "configuration", ""
        if found.source == LIST_SOURCE and self._listed is not None:
            source, as_of = self._listed.edition()
        price = ModelPrice(
            input=found.input / _PER_MILLION,
            output=found.output / _PER_MILLION,
            cache_read=found.cache_read / _PER_MILLION,
            cache_write=found.cache_write / _PER_MILLION,
            source=source,
            as_of=as_of,
        )
        return ModelFacts(context=listed, max_output=found.max_output, price=price)

    def has_units(self, provider: str, model: str) -> bool:
        """Whether a model has a price per image, character, minute or search unit."""
        found = self.find(provider, model)
        return found is not None and found.has_units

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """The cost of a call, in micro-dollars; None if there is no price."""
        found = self.find(provider, model)
        return None if found is None else apply_ratio(found.cost(usage), ratio)

    def _own_price(self, provider: str, model: str) -> Rates | None:
        full = f"{provider}/{model}"
        for name in (full, model):
            if name in self._own:
                return self._own[name]
        for pattern, found in self._patterns:
            if matches_pattern(pattern, full) or matches_pattern(pattern, model):
                return found
        return None


def apply_ratio(amount: int, ratio: int) -> int:
    """An amount times a ratio in millionths, rounded up."""
    return -(-amount * ratio // 1_000_000)


class _PriceList:
    """The package genai-prices, which is imported on first use."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._package: list[Any] = []  # the latest list
        self._base: Any = None  # the list at the beginning of the month, if another is the latest
        self._month = ""
        self.held = HeldPrices(clock)

    def __call__(self, provider: str, model: str, now: float) -> Rates | None:
        latest = self._price(self._snapshot(), provider, model, now)
        if self._base is None:
            return latest
        if month_of(now) != self._month:
            self._base = None
            return latest
        base = self._price(self._base, provider, model, now)
        return self.held.choose(provider, model, base, latest)

    def update(self, latest: Any) -> None:
        """Use a newer list; what it makes dearer applies from the next month on."""
        month = month_of(self._clock())
        if self._base is None or month != self._month:
            self._base, self._month = self._snapshot(), month
        self._package[:] = [latest]

    def _price(self, snapshot: Any, provider: str, model: str, now: float) -> Rates | None:
        found = _model_in(snapshot, provider, model)
        return _read(found.get_prices(_to_datetime(now))) if found is not None else None

    def context(self, provider: str, model: str) -> int | None:
        """The context length of a model in tokens."""
        found = _model_in(self._snapshot(), provider, model)
        return found.context_window if found is not None else None

    def edition(self) -> tuple[str, str]:
        """The name and version of the list, and the date of its last update since."""
        from importlib.metadata import version

        snapshot = self._snapshot()
        name = f"{LIST_SOURCE} {version(LIST_SOURCE)}"
        return name, snapshot.timestamp.date().isoformat() if snapshot.from_auto_update else ""

    def _snapshot(self) -> Any:
        if not self._package:
            self._package.append(_load_package())
        return self._package[0]


def _model_in(snapshot: Any, provider: str, model: str) -> Any:
    """The entry of a model in a list of genai-prices; None if there is none."""
    # (Without provider: found by the model alone.)
    for where in (_LISTED_NAMES.get(provider, provider), None):
        try:
            _, found = snapshot.find_provider_model(model, None, where, None)
        except LookupError:
            continue
        return found
    return None


def _load_package() -> Any:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


def _to_datetime(now: float) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(now, UTC)


_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
    "image_input": "input_image_mtok",
    "image_output": "output_image_mtok",
}
_TIER_FIELDS = frozenset(Tier.__struct_fields__)


def _read(listed: Any) -> Rates | None:
    """Convert a price of genai-prices; None if it has no token prices."""
    fields: dict[str, Any] = {}
    tiers: dict[int, dict[str, Any]] = {}
    for name, listed_name in _FIELDS.items():
        value = getattr(listed, listed_name, None)
        if value is None:
            continue
        fields[name] = float(getattr(value, "base", value))
        for tier in getattr(value, "tiers", ()):
            if name in _TIER_FIELDS:
                tiers.setdefault(tier.start, {})[name] = float(tier.price)
    per_thousand = getattr(listed, "requests_kcount", None)
    if per_thousand is not None:
        fields["request"] = float(getattr(per_thousand, "base", per_thousand)) / 1000
    if not fields:
        return None
    above: dict[str, Any] = {}
    rows = []
    for start in sorted(tiers):
        above = {**above, **tiers[start]}
        rows.append(Tier(above=start, **above))
    return to_rates(Price(**fields, tiers=tuple(rows)), LIST_SOURCE)
