"""Settings of usage records, the audit log and budget alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from asgi_aiproxy.config.values import Network, Secret, Text


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class AuditSettings(_Table):
    """How many entries the audit log keeps, and for how many days (without it: no time limit)."""

    max_entries: int = Field(default=100_000, ge=1)
    retention_days: float | None = Field(default=None, gt=0)


class BudgetAlertSettings(_Table):
    """Which fractions of budgets are reported: to the log, and to the URL of a webhook, which is
    signed with `webhook_signing_key` and may be in `webhook_networks` besides public ones."""

    thresholds: list[Annotated[float, Field(gt=0, le=1)]] = [0.5, 0.8, 0.95]
    log: bool = True
    webhook: Text | None = None
    webhook_signing_key: Secret | None = None
    webhook_networks: list[Network] = []
