"""Mail to users whose balance is low: a callback for the thresholds of budgets."""

from __future__ import annotations

from asgi_aiproxy.accounts.users import Users
from asgi_aiproxy.principal import user_number
from asgi_aiproxy.quotas.alerts import BudgetAlert
from asgi_aiproxy.services.budgets import MICRO
from asgi_aiproxy.services.mail import Mail, Mailer
from asgi_aiproxy.stores.base import Store


class LowBalanceMail:
    """Sends a mail to the user of an account of which a fraction is spent: an `on_threshold` of
    `Quota`, which calls it once for each threshold.

    Arguments:

    - `store`: keeps the users.
    - `mailer`: sends the mail; only to addresses that are verified.
    - `fraction`: thresholds below it are not reported to users, from 0 to 1.
    - `name`: the name of the gateway in mail.
    - `link`: where users add to their balance, and can see it.
    """

    def __init__(
        self,
        store: Store,
        mailer: Mailer,
        *,
        fraction: float = 0.8,
        name: str = "AI gateway",
        link: str = "",
    ) -> None:
        self._users = Users(store)
        self._mailer = mailer
        self._fraction = fraction
        self._name = name
        self._link = link

    async def __call__(self, alert: BudgetAlert) -> None:
        """Send a mail for an alert, if it concerns the account of a user."""
        number = user_number(alert.account)
        if number is None or alert.caller or alert.threshold < self._fraction:
            return
        user = await self._users.find(number)
        if user is None or not user.enabled or not user.email_verified:
            return
        left = max(0, alert.left)
        amount = f"${left / MICRO:,.2f}" if alert.unit == "usd" else f"{left:,} units"
        text = f"{amount} of your balance at {self._name} is left.\n"
        if self._link:
            text += f"\n{self._link}\n"
        await self._mailer(Mail(to=user.email, subject=f"{self._name}: low balance", text=text))
