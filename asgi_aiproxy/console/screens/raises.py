"""Raise a budget of a token or an account for some time."""

from __future__ import annotations

from asgi_aiproxy.console.forms import read_form
from asgi_aiproxy.console.pages import PageAnswer, PageRequest
from asgi_aiproxy.errors import invalid

DAYS = (1, 7, 30)


async def raise_budget(request: PageRequest, operation: str, address: str) -> PageAnswer:
    """Run a raise by an operation of the admin API, and return to `address`.

    The field `budget` has the unit and the period of the budget. Raises APIError.
    """
    given = read_form(request.form, budget="text", amount="number", days="integer")
    unit, _, per = given.get("budget", "").partition(" ")
    amount = given.get("amount", 0)
    if unit not in ("usd", "units") or not per:
        raise invalid("budget: select a budget.", "budget")
    if amount <= 0 or (unit == "units" and not float(amount).is_integer()):
        raise invalid("amount: must be more than 0, and units an integer.", "amount")
    if given.get("days") not in DAYS:
        raise invalid("days: select for how long.", "days")
    body = {
        unit: int(amount) if unit == "units" else amount,
        "per": per,
        "seconds": given["days"] * 86400.0,
    }
    await request.api(operation, id=request.path["id"], body=body)
    return request.redirect(address, done="saved")
