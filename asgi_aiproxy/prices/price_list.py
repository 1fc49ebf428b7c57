"""`Prices`: what the models of all vendors cost, from the package genai-prices and from you."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.patterns import matches_pattern
from asgi_aiproxy.prices.price import Price, Rates, Tier, to_rates

# What runs on one's own machines has no list price, even if a model of that name has one elsewhere.
_AT_HOME = frozenset({"ollama", "vllm", "lmstudio"})
# Some prices change with the hour of the day: what was looked up is good for so many seconds.
_GOOD_FOR = 60.0
_KNOWN_AT_MOST = 10_000


NO_LIST = (
    "List prices come from the package genai-prices, which is not installed: "
    "pip install 'asgi-aiproxy[prices]'. Or give your own: Prices({...}, listed=False)."
)


def list_installed() -> bool:
    """Whether the package with the list prices is installed. It is not imported."""
    return importlib.util.find_spec("genai_prices") is not None


class Prices:
    """What models cost, in dollars.

    `own` are prices of your own, by model or `provider/model`, also as patterns (`*`, `?`); they go
    first, those without a pattern before the others. What they do not name is looked up in the
    package genai-prices (extra `prices`) unless `listed` is False: it works offline and is only
    imported when first asked. `unknown` is the price of models that neither knows; without it
    they have none, and cannot be used by those who have a budget.

    Raises ConfigurationError if a price is invalid, or the list is wanted and not installed.
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
                    f"The price of {pattern!r} is a Price, not {type(price).__name__}."
                )
        if listed and not list_installed():
            raise ConfigurationError(NO_LIST)
        self._own = {name: to_rates(price) for name, price in (own or {}).items()}
        self._patterns = [(name, found) for name, found in self._own.items() if set(name) & {*"*?"}]
        self._listed = _lookup() if listed else None
        self._unknown = to_rates(unknown) if unknown is not None else None
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, Rates | None]] = {}

    def __repr__(self) -> str:
        return f"Prices({len(self._own)} of its own)"

    def load(self) -> None:
        """Read the list of prices now, which takes a quarter of a second; else it is done when it
        is first asked.
        """
        if self._listed is not None:
            self._listed("openai", "gpt-4o", self._clock())

    def find(self, provider: str, model: str) -> Rates | None:
        """The price of a model at a provider, None if it has none."""
        now = self._clock()
        known = self._known.get((provider, model))
        if known is not None and known[0] > now:
            return known[1]
        found = self._own_price(provider, model)
        if found is None and self._listed is not None and provider not in _AT_HOME:
            found = self._listed(provider, model, now)
        if found is None:
            found = self._unknown
        if len(self._known) >= _KNOWN_AT_MOST:
            self._known.clear()
        self._known[provider, model] = now + _GOOD_FOR, found
        return found

    def max_cost(
        self, provider: str, model: str, input: int, output: int, ratio: int
    ) -> int | None:
        """The most that so many tokens can cost, in micro-dollars; None if there is no price.

        `ratio` is what the caller's group pays, in millionths.
        """
        found = self.find(provider, model)
        return None if found is None else apply_ratio(found.max_cost(input, output), ratio)

    def max_output(self, provider: str, model: str) -> int | None:
        """The most tokens that a model writes, if its price says so."""
        found = self.find(provider, model)
        return found.max_output if found is not None else None

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """What an exchange costs, in micro-dollars; None if there is no price."""
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
    """An amount times a ratio in millionths; a part counts as a whole."""
    return -(-amount * ratio // 1_000_000)


Lookup = Callable[[str, str, float], Rates | None]


def _lookup() -> Lookup:
    """A look into genai-prices, which is imported at the first."""
    package: list[Any] = []

    def find(provider: str, model: str, now: float) -> Rates | None:
        if not package:
            package.append(_package())
        snapshot, at = package[0], _moment(now)
        for where in (provider, None):  # a provider of another name: the model may tell whose it is
            try:
                _, found = snapshot.find_provider_model(model, None, where, None)
            except LookupError:
                continue
            return _read(found.get_prices(at))
        return None

    return find


def _package() -> Any:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


def _moment(now: float) -> Any:
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
_IN_TIERS = frozenset(Tier.__struct_fields__)


def _read(listed: Any) -> Rates | None:
    """A row of genai-prices as ours; None if it does not price tokens."""
    fields: dict[str, Any] = {}
    tiers: dict[int, dict[str, Any]] = {}
    for ours, theirs in _FIELDS.items():
        value = getattr(listed, theirs, None)
        if value is None:
            continue
        fields[ours] = float(getattr(value, "base", value))
        for tier in getattr(value, "tiers", ()):
            if ours in _IN_TIERS:
                tiers.setdefault(tier.start, {})[ours] = float(tier.price)
    thousand = getattr(listed, "requests_kcount", None)
    if thousand is not None:
        fields["request"] = float(getattr(thousand, "base", thousand)) / 1000
    if not fields:
        return None
    above: dict[str, Any] = {}
    rows = []
    for start in sorted(tiers):
        above = {**above, **tiers[start]}
        rows.append(Tier(above=start, **above))
    return to_rates(Price(**fields, tiers=tuple(rows)))
