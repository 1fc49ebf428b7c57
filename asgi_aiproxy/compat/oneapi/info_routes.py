"""Management calls about the gateway itself: status, options, groups, models and the log."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import __version__
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.compat.oneapi import management as m
from asgi_aiproxy.compat.oneapi.logs import LogFilter, total_quota
from asgi_aiproxy.compat.oneapi.rows import all_rows
from asgi_aiproxy.compat.routing import CompatCall, Route
from asgi_aiproxy.errors import APIError

_SEARCH_ROWS, _SUM_ROWS = 100, 10_000


class InfoRoutes:
    """The routes `/api/status`, `/api/option`, `/api/group`, `/api/log` and the pages' texts."""

    def __init__(self, base: m.Management) -> None:
        self._base = base
        self._started = base.data.now()

    def routes(self) -> list[Route]:
        """Return all routes."""
        route, opened = self._base.route, self._base.open_route
        return [
            Route("GET", "/api/status", opened(self._status)),
            Route("GET", "/api/notice", opened(self._text("Notice"))),
            Route("GET", "/api/about", opened(self._text("About"))),
            Route("GET", "/api/home_page_content", opened(self._text("HomePageContent"))),
            Route("GET", "/api/option", route(m.SUPERUSER, self._options)),
            Route("PUT", "/api/option", route(m.SUPERUSER, self._set_option)),
            Route("GET", "/api/group", route(m.ADMINISTRATOR, self._groups)),
            Route("GET", "/api/models", route(m.USER, self._models)),
            Route("GET", "/api/log", route(m.ADMINISTRATOR, self._log)),
            Route("DELETE", "/api/log", route(m.ADMINISTRATOR, self._delete_log)),
            Route("GET", "/api/log/stat", route(m.ADMINISTRATOR, self._log_sum)),
            Route("GET", "/api/log/search", route(m.ADMINISTRATOR, self._log_search)),
            Route("GET", "/api/log/self", route(m.USER, self._own_log)),
            Route("GET", "/api/log/self/stat", route(m.USER, self._own_sum)),
            Route("GET", "/api/log/self/search", route(m.USER, self._own_search)),
        ]

    async def _status(self, call: CompatCall) -> Any:
        options = self._base.options
        values = options.values
        return {
            "version": f"asgi-aiproxy {__version__}",
            "start_time": self._started,
            "email_verification": options.on("EmailVerificationEnabled"),
            "github_oauth": options.on("GitHubOAuthEnabled"),
            "github_client_id": values["GitHubClientId"],
            "lark_client_id": "",
            "system_name": values["SystemName"],
            "logo": values["Logo"],
            "footer_html": values["Footer"],
            "wechat_qrcode": values["WeChatAccountQRCodeImageURL"],
            "wechat_login": options.on("WeChatAuthEnabled"),
            "server_address": values["ServerAddress"],
            "turnstile_check": options.on("TurnstileCheckEnabled"),
            "turnstile_site_key": values["TurnstileSiteKey"],
            "top_up_link": values["TopUpLink"],
            "chat_link": values["ChatLink"],
            "quota_per_unit": options.number("QuotaPerUnit"),
            "display_in_currency": options.on("DisplayInCurrencyEnabled"),
            "oidc": False,
        }

    def _text(self, name: str) -> Any:
        async def run(call: CompatCall) -> Any:
            return self._base.options.values[name]

        return run

    async def _options(self, call: CompatCall, user: User) -> Any:
        await self._base.options.load()
        return self._base.options.public()

    async def _set_option(self, call: CompatCall, user: User) -> Any:
        try:
            body = await call.fields()
        except APIError as error:
            await m.fail(call, error.message, status=400)
            return None
        value = body.get("value", "")
        if not isinstance(value, str):
            await m.fail(call, "value: must be a string.", status=400)
            return None
        await self._base.options.set(m.text_member(body, "key"), value)
        return m.NO_DATA

    async def _groups(self, call: CompatCall, user: User) -> Any:
        return list(self._base.options.group_ratios())

    async def _models(self, call: CompatCall, user: User) -> Any:
        await self._base.channels.refresh()
        found: dict[str, list[str]] = {}
        for row in self._base.channels.rows.values():
            names = [name.strip() for name in row.models.split(",") if name.strip()]
            found.setdefault(str(row.type), []).extend(names)
        return {type: sorted(set(names)) for type, names in found.items()}

    # the log

    async def _log(self, call: CompatCall, user: User) -> Any:
        return await self._page(call, None)

    async def _own_log(self, call: CompatCall, user: User) -> Any:
        return await self._page(call, user)

    async def _page(self, call: CompatCall, user: User | None) -> Any:
        start = max(0, m.query_number(call, "p")) * m.PAGE_ROWS
        entries = await self._entries(_filter(call), start + m.PAGE_ROWS, user)
        return entries[start:]

    async def _log_search(self, call: CompatCall, user: User) -> Any:
        return await self._search(call, None)

    async def _own_search(self, call: CompatCall, user: User) -> Any:
        return await self._search(call, user)

    async def _search(self, call: CompatCall, user: User | None) -> Any:
        wanted = LogFilter(keyword=call.query.get("keyword", ""))
        return await self._entries(wanted, _SEARCH_ROWS, user)

    async def _log_sum(self, call: CompatCall, user: User) -> Any:
        return {"quota": total_quota(await self._entries(_filter(call), _SUM_ROWS, None))}

    async def _own_sum(self, call: CompatCall, user: User) -> Any:
        return {"quota": total_quota(await self._entries(_filter(call), _SUM_ROWS, user))}

    async def _delete_log(self, call: CompatCall, user: User) -> Any:
        until = m.query_number(call, "target_timestamp")
        if until <= 0:
            raise m.ManagementError("target_timestamp: a Unix time is required.")
        return await self._base.logs.delete(until)

    async def _entries(self, wanted: LogFilter, limit: int, user: User | None) -> Any:
        names = {row.id: row.username async for row in self._base.users.all()}
        tokens = {row.token_id: row.name async for row in all_rows(self._base.data.token_rows)}
        return await self._base.logs.read(wanted, names, tokens, limit, user=user)


def _filter(call: CompatCall) -> LogFilter:
    query = call.query
    return LogFilter(
        type=m.query_number(call, "type"),
        start=m.query_number(call, "start_timestamp"),
        end=m.query_number(call, "end_timestamp"),
        username=query.get("username", ""),
        token_name=query.get("token_name", ""),
        model_name=query.get("model_name", ""),
        channel=m.query_number(call, "channel"),
    )
