"""Settings of `[accounts]`: users that sign in to the console."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from asgi_aiproxy.config.jwt_settings import BudgetText
from asgi_aiproxy.config.values import Secret


class MailSettings(BaseModel):
    """The SMTP server that sends mail, and the address that mail is from.

    `security`: `tls` from the first byte, `starttls`, or `none`. `timeout` is in seconds.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    host: str = Field(min_length=1)
    sender: str = Field(min_length=3)
    port: int | None = Field(default=None, ge=1, le=65535)
    security: Literal["tls", "starttls", "none"] = "starttls"
    user: str = ""
    password: Secret | None = None
    timeout: float = Field(default=20.0, gt=0)


class AccountsSettings(BaseModel):
    """Users with passwords: whether there are any, how they sign up, and what they begin with.

    - `sign_up`: `closed` (an operator creates users), `invitation` (with a code of an operator),
      `domains` (with an address at one of `email_domains`), or `open`.
    - `url`: where browsers reach the console, for links in mail.
    - `credit`: the budgets of new users. `invited_credit` and `inviter_credit` are added to those
      of a user that was invited by another one, and of the other one.
    - `low_balance`: from which of the `budget_alerts.thresholds` on a user is sent a mail.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    enabled: bool = False
    sign_up: Literal["closed", "invitation", "domains", "open"] = "closed"
    email_domains: list[str] = []
    url: str = Field(default="", pattern=r"^(https?://[^?#\s]+)?$")
    credit: list[BudgetText] = []
    invited_credit: BudgetText | None = None
    inviter_credit: BudgetText | None = None
    mail: MailSettings | None = None
    low_balance: float = Field(default=0.8, gt=0, le=1)
