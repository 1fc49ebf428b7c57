"""Tokens: all of them for operators, a user's own for users."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.console.forms import read_form, time_value
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute, segment
from asgi_aiproxy.console.screens.raises import raise_budget
from asgi_aiproxy.console.screens.selection import change_selection
from asgi_aiproxy.services.budgets import BudgetOut
from asgi_aiproxy.services.tokens import TokenOut

_GRACE = {"0", "3600", "86400", "604800"}  # seconds for which a replaced secret stays valid


def token_pages() -> list[PageRoute]:
    """Return the pages of all tokens, for operators."""
    pages = _Pages("/tokens", "/tokens", own=False)
    return pages.routes("read", "write")


def own_token_pages() -> list[PageRoute]:
    """Return the pages of one's own tokens."""
    pages = _Pages("/my/tokens", "/me/tokens", own=True)
    return pages.routes("token", "token")


class _Pages:
    def __init__(self, base: str, api: str, *, own: bool) -> None:
        self.base = base
        self.api = api
        self.own = own

    def routes(self, read: Any, write: Any) -> list[PageRoute]:
        item = self.base + "/{id}"
        weighty = not self.own
        selection = PageRoute(
            "POST", f"{self.base}/selection", write, self.selection, again=self.list, confirm=True
        )
        raised = PageRoute(
            "POST", f"{item}/raise", write, self.raise_budget, again=self.show, confirm=True
        )
        return [
            *([] if self.own else [selection, raised]),
            PageRoute("GET", self.base, read, self.list),
            PageRoute("POST", self.base, write, self.create, again=self.list, confirm=weighty),
            PageRoute("GET", item, read, self.show),
            PageRoute("POST", f"{item}/edit", write, self.edit, again=self.show, confirm=weighty),
            PageRoute(
                "POST", f"{item}/rotate", write, self.rotate, again=self.show, confirm=weighty
            ),
            PageRoute("POST", f"{item}/enable", write, self.enable, again=self.show),
            PageRoute("POST", f"{item}/disable", write, self.disable, again=self.show),
            PageRoute(
                "POST", f"{item}/remove", write, self.remove, again=self.show, confirm=weighty
            ),
        ]

    async def list(self, request: PageRequest) -> PageAnswer:
        query = {} if self.own else {"limit": "50", "after": request.query.get("after", "")}
        page = await request.api(f"GET {self.api}", query=query)
        allowed = await request.api("GET /me/allowed") if self.own else None
        return request.page(
            "tokens.html", tokens=page.data, next=page.next, base=self.base, own=self.own,
            allowed=allowed, may_create=bool(allowed.tokens) if allowed else request.may("write"),
        )  # fmt: skip

    async def create(self, request: PageRequest) -> PageAnswer:
        body = read_form(request.form, name="text", models="list", budgets="list", expires="time")
        if not self.own:
            body |= read_form(
                request.form, rpm="integer", tpm="integer", concurrency="integer",
                networks="list", account="text", group="text", scopes="choices",
                may_choose_key="flag",
            )  # fmt: skip
        issued = await request.api(f"POST {self.api}", body=body)
        return request.page("secret.html", issued=issued, base=self.base, own=self.own)

    async def selection(self, request: PageRequest) -> PageAnswer:
        return await change_selection(request, f"POST {self.api}/bulk", self.base)

    async def show(self, request: PageRequest) -> PageAnswer:
        token = await request.api(f"GET {self.api}/{{id}}", id=request.path["id"])
        return request.page(
            "token.html",
            token=token,
            base=self.base,
            own=self.own,
            address=self._address(request),
            values=_values(token),
            may_edit=token.id != request.caller.id if self.own else request.may("write"),
            may_rotate=self.own or request.may("write"),
        )

    async def edit(self, request: PageRequest) -> PageAnswer:
        body = read_form(
            request.form, edit=True, name="text", models="list", budgets="list", expires="time"
        )
        if body.get("name") is None:
            body.pop("name", None)
        if not self.own:
            body |= read_form(
                request.form, edit=True, rpm="integer", tpm="integer", concurrency="integer",
                networks="list", account="text", group="text", may_choose_key="flag",
            )  # fmt: skip
        return await self._change(request, body)

    async def rotate(self, request: PageRequest) -> PageAnswer:
        grace = request.form.get("grace", ["0"])[0]
        issued = await request.api(
            f"POST {self.api}/{{id}}/rotate",
            id=request.path["id"],
            body={"grace": float(grace) if grace in _GRACE else 0.0},
        )
        return request.page("secret.html", issued=issued, base=self.base, own=self.own)

    async def enable(self, request: PageRequest) -> PageAnswer:
        return await self._change(request, {"enabled": True})

    async def disable(self, request: PageRequest) -> PageAnswer:
        return await self._change(request, {"enabled": False})

    async def raise_budget(self, request: PageRequest) -> PageAnswer:
        operation = f"POST {self.api}/{{id}}/raise"
        return await raise_budget(request, operation, self._address(request))

    async def remove(self, request: PageRequest) -> PageAnswer:
        await request.api(f"DELETE {self.api}/{{id}}", id=request.path["id"])
        return request.redirect(self.base, done="removed")

    async def _change(self, request: PageRequest, body: dict[str, Any]) -> PageAnswer:
        await request.api(f"PATCH {self.api}/{{id}}", id=request.path["id"], body=body)
        return request.redirect(self._address(request), done="saved")

    def _address(self, request: PageRequest) -> str:
        return f"{self.base}/{segment(request.path['id'])}"


def _values(token: TokenOut) -> dict[str, str]:
    """Return the values of the fields of the form that changes a token."""
    limits = token.limits
    rates = {
        name: str(rate.limit) if (rate := getattr(limits, name)) is not None else ""
        for name in ("rpm", "tpm", "concurrency")
    }
    return {
        "name": token.name,
        "models": ", ".join(token.models),
        "networks": ", ".join(token.networks),
        "budgets": ", ".join(map(written_budget, limits.budgets)),
        "expires": time_value(token.expires),
        "account": token.account,
        "group": token.group,
        **rates,
    }


def written_budget(budget: BudgetOut) -> str:
    """Return a budget as it is written in a form: `25/month`, `5000 units/day`."""
    amount = f"{budget.limit:.6f}".rstrip("0").rstrip(".")
    if budget.unit == "units":
        amount = f"{budget.limit:.0f} units"
    return amount if budget.per == "total" else f"{amount}/{budget.per}"


def budget_texts(budgets: tuple[BudgetOut, ...]) -> str:
    """Return budgets as the value of a form's field."""
    return ", ".join(map(written_budget, budgets))
