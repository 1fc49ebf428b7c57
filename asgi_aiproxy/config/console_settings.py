"""Settings of the console: self-service, and what an operator adds to the pages."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from asgi_aiproxy.config.jwt_settings import BudgetText
from asgi_aiproxy.config.values import Text
from asgi_aiproxy.principal import Budget
from asgi_aiproxy.services.own_tokens import TokenAllowance


class SiteSettings(BaseModel):
    """What is added to the pages of the console: see `asgi_aiproxy.console.Site`.

    `logo` is the path of a file; `home`, `about` and `footer` are Markdown, or `file:PATH`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    logo: str = ""
    home: Text = ""
    about: Text = ""
    footer: Text = ""
    top_up_url: str = ""
    chat_url: str = ""
    currency: Literal["usd", "units"] = "usd"


class SelfServiceSettings(BaseModel):
    """How many tokens callers may create for themselves, for which models, with which budgets, and
    for how many days; see `asgi_aiproxy.admin.TokenAllowance`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    tokens: int = Field(default=0, ge=0, le=1000)
    models: list[str] = []
    budgets: list[BudgetText] = []
    days: float | None = Field(default=None, gt=0)

    def allowance(self) -> TokenAllowance:
        """Return what callers may create."""
        return TokenAllowance(
            tokens=self.tokens,
            models=tuple(self.models),
            budgets=tuple(map(Budget.parse, self.budgets)),
            days=self.days,
        )
