"""The callers of the configuration, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.principal import Budget, Limits, Principal, check_tags

if TYPE_CHECKING:
    from asgi_aiproxy.config.provider_settings import TokenSettings
    from asgi_aiproxy.config.settings import Settings


def configured_callers(settings: Settings) -> dict[str, Principal]:
    """The callers of the configuration, by their ids."""
    return {caller.id: caller for caller in configured_tokens(settings.tokens).values()}


def configured_tokens(given: Sequence[TokenSettings]) -> dict[str, Principal]:
    """The callers of tokens in the configuration, by the tokens. Raises ConfigurationError."""
    tokens: dict[str, Principal] = {}
    for each in given:
        token = each.token.get_secret_value()
        if token in tokens:
            raise ConfigurationError(
                f"tokens: {tokens[token].name!r} and {each.name!r} have the same token; give each "
                f"one of its own."
            )
        try:
            check_tags(each.tags)
        except ConfigurationError as error:
            raise ConfigurationError(f"tokens: {each.name!r}: {error}") from error
        tokens[token] = Principal(
            each.name,
            each.name,
            tuple(each.models),
            limits=limits_of(each),
            networks=tuple(each.networks),
            tags=each.tags,
        )
    return tokens


def limits_of(given: TokenSettings) -> Limits:
    """The limits of a token in the configuration."""
    budgets: tuple[Budget, ...] = ()
    if given.budget_usd is not None:
        budgets = (Budget.usd(given.budget_usd, given.budget_per),)
    budgets += tuple(Budget.parse(text) for text in given.budgets)
    return Limits(given.rpm, given.tpm, given.concurrency, budgets)


def has_usd_budget(limits: Limits) -> bool:
    """Whether there is a budget in US dollars among the limits."""
    return any(budget.unit == "usd" for budget in limits.budgets)


def has_limits(settings: Settings) -> bool:
    """Whether any token of the configuration has limits."""
    groups = settings.jwt.groups.values() if settings.jwt is not None else ()
    return any(limits_of(token) != Limits() for token in settings.tokens) or any(
        group.limits != Limits() for group in groups
    )
