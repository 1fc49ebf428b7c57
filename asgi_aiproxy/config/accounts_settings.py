"""Settings of `[accounts]`: users that sign in to the console."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from asgi_aiproxy.config.jwt_settings import BudgetText
from asgi_aiproxy.config.values import Proxy, Secret


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


class IdentityProviderSettings(BaseModel):
    """An identity provider: `oidc` with an `issuer`, or `github`.

    See `asgi_aiproxy.services.oidc` and `.github`. `url` and `api_url` are those of a GitHub
    Enterprise Server.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    kind: Literal["oidc", "github"] = "oidc"
    label: str = ""
    issuer: str = ""
    client_id: str = Field(min_length=1)
    client_secret: Secret
    scopes: list[str] = ["openid", "email", "profile"]
    email_domains: list[str] = []
    link_by_email: bool = True
    proxy: Proxy | None = None
    url: str = "https://github.com"
    api_url: str = "https://api.github.com"


class TurnstileSettings(BaseModel):
    """The keys of a Turnstile widget; see `asgi_aiproxy.services.turnstile`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    site_key: str = Field(min_length=1)
    secret: Secret


class AccountsSettings(BaseModel):
    """Users with passwords: whether there are any, how they sign up, and what they begin with.

    - `sign_up`: `closed` (an operator creates users), `invitation` (with a code of an operator),
      `domains` (with an address at one of `email_domains`), or `open`.
    - `url`: where browsers reach the console, for links in mail and identity providers.
    - `credit`: the budgets of new users. `invited_credit` and `inviter_credit` are added to those
      of a user that was invited by another one, and of the other one.
    - `providers`: identity providers, by their names in URLs.
    - `turnstile`: a check of persons at sign-up and before mail is sent.
    - `second_factor`: the roles whose users need a second factor.
    - `passkeys`: whether users may sign in with passkeys, for which `url` must have a host name.
    - `confirm_minutes`: for how long a sign-in is enough for actions of weight; 0: always.
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
    providers: dict[str, IdentityProviderSettings] = {}
    turnstile: TurnstileSettings | None = None
    second_factor: list[Literal["user", "operator", "root"]] = []
    passkeys: bool = False
    confirm_minutes: float = Field(default=10.0, ge=0)
    low_balance: float = Field(default=0.8, gt=0, le=1)
