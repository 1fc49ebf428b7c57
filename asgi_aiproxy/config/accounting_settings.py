"""Settings of usage records, the audit log and budget alerts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AuditSettings(BaseModel):
    """How many entries the audit log keeps, and for how many days (without it: no time limit)."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    max_entries: int = Field(default=100_000, ge=1)
    retention_days: float | None = Field(default=None, gt=0)
