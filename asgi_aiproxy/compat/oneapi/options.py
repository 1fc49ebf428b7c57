"""The options of One API: their defaults, what they mean here, and prices by ratios."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from asgi_aiproxy.compat.oneapi.rows import OneAPIData
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.prices import Pricing, Ratio, Ratios

_TABLE = "oneapi.options"
_PRIVATE = ("Token", "Secret")  # the ends of the names of secret options

# One unit of quota is $0.000002: a ratio of 1 is $2 per million tokens.
QUOTA_PER_UNIT = 500_000
_UNKNOWN_RATIO = 30.0
_MICRO = 1_000_000
_NO_UNITS = Usage()

_SWITCHES = {
    "PasswordLoginEnabled": True,
    "PasswordRegisterEnabled": True,
    "RegisterEnabled": True,
    "EmailVerificationEnabled": False,
    "GitHubOAuthEnabled": False,
    "WeChatAuthEnabled": False,
    "TurnstileCheckEnabled": False,
    "AutomaticDisableChannelEnabled": False,
    "AutomaticEnableChannelEnabled": False,
    "ApproximateTokenEnabled": False,
    "LogConsumeEnabled": True,
    "DisplayInCurrencyEnabled": True,
    "DisplayTokenStatEnabled": True,
}
_NUMBERS = {
    "ChannelDisableThreshold": "5",
    "QuotaForNewUser": "0",
    "QuotaForInviter": "0",
    "QuotaForInvitee": "0",
    "QuotaRemindThreshold": "1000",
    "PreConsumedQuota": "500",
    "QuotaPerUnit": str(QUOTA_PER_UNIT),
    "RetryTimes": "0",
    "SMTPPort": "587",
}
_TEXTS = (
    "SMTPServer",
    "SMTPFrom",
    "SMTPAccount",
    "SMTPToken",
    "Notice",
    "About",
    "HomePageContent",
    "Footer",
    "Logo",
    "ServerAddress",
    "GitHubClientId",
    "GitHubClientSecret",
    "WeChatServerAddress",
    "WeChatServerToken",
    "WeChatAccountQRCodeImageURL",
    "TurnstileSiteKey",
    "TurnstileSecretKey",
    "TopUpLink",
    "ChatLink",
    "Theme",
)
_GROUPS = {"default": 1.0, "vip": 1.0, "svip": 1.0}
# The ratios that One API has documented; operators set others with the option ModelRatio.
_MODEL_RATIOS = {
    "gpt-4": 15.0,
    "gpt-4-32k": 30.0,
    "gpt-3.5-turbo": 0.75,
    "gpt-3.5-turbo-16k": 1.5,
    "text-ada-001": 0.2,
    "text-embedding-ada-002": 0.05,
    "text-moderation-stable": 0.1,
    "text-moderation-latest": 0.1,
}
DEFAULTS: dict[str, str] = {
    **{name: "true" if on else "false" for name, on in _SWITCHES.items()},
    **_NUMBERS,
    **dict.fromkeys(_TEXTS, ""),
    "SystemName": "One API",
    "ModelRatio": json.dumps(_MODEL_RATIOS),
    "CompletionRatio": "{}",
    "GroupRatio": json.dumps(_GROUPS),
}
_TABLES = ("ModelRatio", "CompletionRatio", "GroupRatio")
# Switches that need another option first.
_NEEDS = {
    "GitHubOAuthEnabled": "GitHubClientId",
    "WeChatAuthEnabled": "WeChatServerAddress",
    "TurnstileCheckEnabled": "TurnstileSiteKey",
}
_THEMES = ("default", "berry", "air")


class OptionError(Exception):
    """An option cannot have this value."""


class Options:
    """The options in a store, over their defaults. `load` reads them, `set` changes one."""

    def __init__(self, data: OneAPIData) -> None:
        self._data = data
        self.values: dict[str, str] = dict(DEFAULTS)
        self._stale = False
        self._stop: Callable[[], None] | None = None

    def start(self) -> None:
        """Watch the store for changes, in the running event loop."""
        if self._stop is None:
            self._stop = self._data.store.watch(_TABLE, self._changed)

    def stop(self) -> None:
        """Stop watching."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _changed(self) -> None:
        self._stale = True

    async def load_if_changed(self) -> None:
        """Read all options again if another process has changed one."""
        if self._stale:
            await self.load()

    async def load(self) -> None:
        """Read all options."""
        self._stale = False
        rows = await self._data.store.rows(_TABLE)
        stored = {}
        for name, value in rows.items():
            text = value.decode()
            stored[name] = self._data.decrypt(text, name) if is_private(name) else text
        self.values = {**DEFAULTS, **stored}

    async def set(self, name: str, value: str) -> None:
        """Change an option. Raises OptionError."""
        check_option(name, value, self.values)
        text = self._data.encrypt(value, name) if is_private(name) else value
        await self._data.store.put(_TABLE, name, text.encode())
        self.values[name] = value

    def on(self, name: str) -> bool:
        """Return whether a switch is on."""
        return self.values.get(name) == "true"

    def number(self, name: str) -> int:
        """Return the value of a number; the default if it is invalid."""
        try:
            return int(float(self.values[name]))
        except ValueError:
            return int(DEFAULTS[name])

    def group_ratios(self) -> dict[str, float]:
        """Return the price ratio of each group."""
        return _ratio_table(self.values["GroupRatio"])

    def model_ratios(self) -> dict[str, float]:
        """Return the price ratio of each model that has one."""
        return _ratio_table(self.values["ModelRatio"])

    def public(self) -> list[dict[str, str]]:
        """Return all options that are not secret."""
        named = sorted(self.values.items())
        return [{"key": name, "value": value} for name, value in named if not is_private(name)]


def is_private(name: str) -> bool:
    """Return whether the value of an option is secret."""
    return name.endswith(_PRIVATE) or name == "TurnstileSecretKey"


def check_option(name: str, value: str, others: Mapping[str, str]) -> None:
    """Raise OptionError if an option cannot have this value."""
    if not name or len(name) > 100 or not name.isprintable():
        raise OptionError("The name of an option must not be empty.")
    if name in _TABLES:
        _ratio_table(value)
    if name in _NUMBERS:
        try:
            finite = math.isfinite(float(value))
        except ValueError:
            finite = False
        if not finite:
            raise OptionError(f"{name}: must be a number.")
    if name == "Theme" and value not in _THEMES:
        raise OptionError(f"Theme: must be one of {', '.join(_THEMES)}.")
    needed = _NEEDS.get(name)
    if needed is not None and value == "true" and not others.get(needed):
        raise OptionError(f"{name}: set {needed} first.")


def _ratio_table(text: str) -> dict[str, float]:
    try:
        found = json.loads(text)
        table = {str(name): float(ratio) for name, ratio in found.items()}
        Ratios(table)
    except (ValueError, AttributeError, TypeError, RecursionError, ConfigurationError) as error:
        raise OptionError("It must be a JSON object of names and numbers.") from error
    return table


class OptionRatios:
    """Prices in quota units by the options `ModelRatio` and `CompletionRatio`.

    A model without a ratio has its list price of `prices`, converted to units, if it has one; else
    the ratio of unknown models.
    """

    unit = "units"

    def __init__(self, options: Options, prices: Pricing | None = None) -> None:
        self._options = options
        self._prices = prices
        self._made: tuple[str, str, Ratios, Ratios] | None = None

    def max_cost(
        self,
        provider: str,
        model: str,
        input: int,
        output: int,
        ratio: int,
        units: Usage = _NO_UNITS,
    ) -> int | None:
        """Return the maximum cost of `input` and `output` tokens and of `units`, in units."""
        known, unknown = self._tables()
        found = known.max_cost(provider, model, input, output, ratio)
        if found is None and self._prices is not None:
            found = _units(self._prices.max_cost("", model, input, output, ratio, units))
        if found is None:
            found = unknown.max_cost(provider, model, input, output, ratio)
        return found

    def max_output(self, provider: str, model: str) -> int | None:
        """Return the maximum number of output tokens of a model, if it is known."""
        return self._prices.max_output("", model) if self._prices is not None else None

    def has_units(self, provider: str, model: str) -> bool:
        """Return whether a model has a price for something beside tokens and requests."""
        return self._prices is not None and self._prices.has_units("", model)

    def cost(self, provider: str, model: str, usage: Usage, ratio: int) -> int | None:
        """Return the cost of a call, in units."""
        known, unknown = self._tables()
        found = known.cost(provider, model, usage, ratio)
        if found is None and self._prices is not None:
            found = _units(self._prices.cost("", model, usage, ratio))
        if found is None:
            found = unknown.cost(provider, model, usage, ratio)
        return found

    def _tables(self) -> tuple[Ratios, Ratios]:
        values = self._options.values
        texts = values["ModelRatio"], values["CompletionRatio"]
        if self._made is None or self._made[:2] != texts:
            completion = _ratio_table(texts[1])
            made: dict[str, Any] = {
                model: Ratio(ratio, completion.get(model, completion_ratio(model)))
                for model, ratio in _ratio_table(texts[0]).items()
            }
            known = Ratios(made)
            self._made = (*texts, known, Ratios({}, unknown=_UNKNOWN_RATIO))
        return self._made[2], self._made[3]


def completion_ratio(model: str) -> float:
    """Return the documented ratio of completion tokens to prompt tokens."""
    if model.startswith("gpt-3.5"):
        return 4 / 3
    return 2.0 if model.startswith("gpt-4") else 1.0


def _units(micro_dollars: int | None) -> int | None:
    if micro_dollars is None:
        return None
    return -(-micro_dollars * QUOTA_PER_UNIT // _MICRO)
