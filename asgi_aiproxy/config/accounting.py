"""Build what records usage, changes and costs, as settings describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_aiproxy.config.accounts import make_low_balance_mail
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.exchange.attribution import Attribution
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.prices import Prices, Ratios
from asgi_aiproxy.quotas.alerts import OnThreshold, log_alert
from asgi_aiproxy.services.audit import AuditLog
from asgi_aiproxy.services.webhook import BudgetWebhook
from asgi_aiproxy.stores import Store
from asgi_aiproxy.usage.ledger import Ledger

if TYPE_CHECKING:
    from asgi_aiproxy.config.settings import Settings

# Default of `ledger_max_records`: how many usage records are kept one by one, about 650 bytes each.
_MAX_RECORDS_IN_REDIS, _MAX_RECORDS_IN_MEMORY = 100_000, 10_000


def make_ledger(
    settings: Settings, store: Store | None, prices: Prices, ratios: Ratios | None
) -> Ledger | None:
    """The ledger of the store; None without a store."""
    if store is None:
        return None
    max_records = settings.ledger_max_records or (
        _MAX_RECORDS_IN_REDIS if settings.redis_url else _MAX_RECORDS_IN_MEMORY
    )
    days = settings.ledger_retention_days
    return Ledger(
        store,
        prices=prices,
        ratios=ratios,
        max_records=max_records,
        retention_seconds=days * 86400.0 if days is not None else None,
        sums_retention_seconds=settings.ledger_sums_days * 86400.0,
    )


def make_attribution(settings: Settings) -> Attribution:
    """What usage records are attributed to. Raises ConfigurationError."""
    try:
        return Attribution(tag_headers=settings.tag_headers, tag_metadata=settings.tag_metadata)
    except ConfigurationError as error:
        raise ConfigurationError(f"tag_headers, tag_metadata: {error}") from error


def make_audit_log(settings: Settings, store: Store) -> AuditLog:
    """The audit log of the store."""
    days = settings.audit.retention_days
    return AuditLog(
        store,
        max_entries=settings.audit.max_entries,
        retention_seconds=days * 86400.0 if days is not None else None,
    )


def make_receipts(settings: Settings, prices: Prices) -> Receipts:
    """Where answers show what they cost."""
    shown = settings.cost_header or settings.cost_comment
    return Receipts(
        header=settings.cost_header,
        comment=settings.cost_comment,
        prices=prices if shown else None,
    )


def make_budget_callbacks(
    settings: Settings, store: Store | None = None
) -> tuple[list[OnThreshold], list[BudgetWebhook]]:
    """The callbacks for budget alerts, and those of them that must be closed.

    Raises ConfigurationError.
    """
    given = settings.budget_alerts
    callbacks: list[OnThreshold] = [log_alert] if given.log and given.thresholds else []
    if store is not None and (mail := make_low_balance_mail(settings, store)) is not None:
        callbacks.append(mail)
    if given.webhook is None:
        return callbacks, []
    if given.webhook_signing_key is None:
        raise ConfigurationError(
            "budget_alerts.webhook: set webhook_signing_key, with which it checks the requests."
        )
    try:
        webhook = BudgetWebhook(
            given.webhook,
            secret=given.webhook_signing_key.get_secret_value(),
            networks=given.webhook_networks,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"budget_alerts: {error}") from error
    return [*callbacks, webhook], [webhook]
