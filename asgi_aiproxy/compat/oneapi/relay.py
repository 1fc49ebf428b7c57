"""The relay of One API: calls with a user's token, served by the channels of the user's group.

Theory of operation. `Authorization: Bearer sk-KEY` names a token; `sk-KEY-7` also selects the
channel 7, for tokens of administrators. The token is verified as everywhere in this package; its
user gives the group, the group the channels and the price ratio. The call goes to one `AIShim` over
all channels, inside `Quota`, which reserves and settles the budgets of token and user. Errors of
the gateway itself are written in the form of One API; those of vendors pass unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import ASGIApp, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._control_headers import PROVIDER
from asgi_aiproxy.accounts import StoredTokenVerifier
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.compat import policy
from asgi_aiproxy.compat.callers import Caller, prepared_headers
from asgi_aiproxy.compat.oneapi.channels import channel_name, groups_of
from asgi_aiproxy.compat.oneapi.management import Management
from asgi_aiproxy.compat.oneapi.models import model_object
from asgi_aiproxy.compat.oneapi.relay_errors import RelayErrors, no_channel_error, relay_error
from asgi_aiproxy.compat.oneapi.rows import ADMIN, ENABLED, ChannelRow, TokenRow, all_rows
from asgi_aiproxy.compat.routing import CompatApp, CompatCall, Route, aliases
from asgi_aiproxy.credentials import find_credential
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.ip_ranges import in_networks
from asgi_aiproxy.keys.resource_records import ResourceOwnership
from asgi_aiproxy.middleware.quota import Quota
from asgi_aiproxy.passthrough import PassthroughProxy
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers import Provider
from asgi_aiproxy.shim import AIShim
from asgi_aiproxy.usage.record import UsageRecord
from asgi_aiproxy.vendor_resources import VendorResources

_PREFIX = "sk-"
_AZURE_VERSION = re.compile(r"\d{4}-\d\d-\d\d(?:-preview)?")
_UNLIMITED = 100_000_000.0
_USER_DISABLED = "The user of this token has been disabled."
_EDITS = policy.retired("OpenAI's edits API", "Use /v1/chat/completions.")
_FINE_TUNES = policy.retired("OpenAI's fine-tunes API", "Use /v1/fine_tuning/jobs.")
_DISABLING_CODES = {"insufficient_quota", "invalid_api_key", "account_deactivated"}
_SHIM_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/responses",
    "/v1/messages",
)
_OWN_FORMAT = ("/v1/messages",)  # whose errors keep the form of their own API
# Models of requests that name none: the first that a channel of the caller serves.
_DEFAULT_MODELS = {
    "/v1/moderations": ("text-moderation-stable", "text-moderation-latest",
                        "omni-moderation-latest"),
    "/v1/images/generations": ("dall-e-2", "dall-e-3", "gpt-image-1"),
}  # fmt: skip
# Members that must not be missing or empty.
_REQUIRED = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/moderations": "input",
    "/v1/images/generations": "prompt",
}


class RelayCaller(msgspec.Struct, frozen=True):
    """The caller of the relay: its principal, user, and the channel that it selects (0: any)."""

    principal: Principal
    user: User
    token_id: str
    channel: int = 0


class RelayRoutes:
    """The routes below `/v1` and `/dashboard`."""

    def __init__(self, base: Management, app: CompatApp, quota: Callable[[Any], Quota]) -> None:
        self._base = base
        self._app = app
        self._verify = StoredTokenVerifier(base.data.store, clock=base.data.clock)
        self._quota = quota
        shim = AIShim(base.channels, transport=app.transport, record=self._record)
        self._shim: ASGIApp = app.own(quota(shim))
        self._proxies: dict[tuple[int, bool], tuple[Provider, ASGIApp]] = {}
        self._records: Callable[[UsageRecord], Any] | None = None

    def routes(self) -> list[Route]:
        """Return all routes."""
        billing = "/dashboard/billing"
        return [
            *aliases("POST", _SHIM_PATHS, self._call),
            Route("POST", "/v1/engines/:model/embeddings", self._call),
            Route("GET", "/v1/models", self._models),
            Route("GET", "/v1/models/:model", self._model),
            Route("DELETE", "/v1/models/:model", self._administer),
            Route("*", "/v1/edits", self._refuse(_EDITS)),
            Route("*", "/v1/fine-tunes/*", self._refuse(_FINE_TUNES)),
            *[
                Route("*", f"/v1/{name}/*", self._stored)
                for name in ("files", "batches", "uploads")
            ],
            *[
                Route("*", f"/v1/{name}/*", self._administer)
                for name in ("fine_tuning", "vector_stores")
            ],
            *aliases("GET", (f"{billing}/subscription", f"/v1{billing}/subscription"),
                     self._subscription),
            *aliases("GET", (f"{billing}/usage", f"/v1{billing}/usage"), self._usage),
        ]  # fmt: skip

    def on_record(self, sink: Callable[[UsageRecord], Any]) -> None:
        """Have `sink` called with each usage record."""
        self._records = sink

    async def _record(self, record: UsageRecord) -> None:
        await self._base.balances.add_usage(record)
        await self._disable_failing(record)
        if self._records is not None:
            await self._records(record)

    async def _disable_failing(self, record: UsageRecord) -> None:
        """Disable channels whose key the vendor has rejected, if the option says so."""
        if not self._base.options.on("AutomaticDisableChannelEnabled"):
            return
        for attempt in record.attempt_details:
            if attempt.status != 401 and attempt.code not in _DISABLING_CODES:
                continue
            id = attempt.provider.removeprefix("channel-")
            row = self._base.channels.rows.get(int(id)) if id.isdecimal() else None
            if row is not None and row.status == ENABLED:
                await self._base.data.channels.edit(f"{row.id:010d}", _disabled)

    # callers

    async def caller(self, call: CompatCall) -> RelayCaller:
        """Return the caller of a request. Raises APIError (400, 401, 403)."""
        token = (find_credential(call.scope) or call.header("authorization")).strip()
        key, _, channel = token.removeprefix(_PREFIX).partition("-")
        if not key:
            raise relay_error(401, "No token was sent: send it as 'Authorization: Bearer <token>'.")
        try:
            principal = await self._verify(_PREFIX + key)
        except APIError as error:
            if error.code == "account_disabled":
                raise relay_error(403, _USER_DISABLED) from error
            raise
        if principal is None:
            raise relay_error(401, "The token is invalid.")
        user = await self._user(principal)
        client = call.scope.get("client")
        if principal.networks and not in_networks(
            principal.networks, client[0] if client else None
        ):
            raise relay_error(403, "Requests from this IP address are not allowed for this token.")
        own = principal.limits.budgets
        if any(budget.unit == "units" and not budget.shared for budget in own):
            await self._check_left(principal)
        await self._base.options.load_if_changed()
        await self._base.channels.refresh()
        ratio = self._base.options.group_ratios().get(user.group, 1.0)
        made = replace(principal, group=user.group, price_ratio=ratio)
        return RelayCaller(made, user, principal.id, self._selected(channel, user))

    async def _user(self, principal: Principal) -> User:
        id = principal.account.removeprefix("user-")
        user = await self._base.users.find(int(id)) if id.isdecimal() else None
        if user is None or not user.enabled:
            raise relay_error(403, _USER_DISABLED)
        return user

    async def _check_left(self, principal: Principal) -> None:
        """Raise APIError (401) if the quota of a token is used up."""
        row = TokenRow(id=1, user_id=0, token_id=principal.id, key="", name="")
        found = (await self._base.balances.of_tokens([row])).get(1)
        if found is not None and found.left <= 0:
            raise relay_error(401, "The quota of the token is used up.")

    def _selected(self, text: str, user: User) -> int:
        """Return the channel that a token selects; 0 for none."""
        if not text:
            return 0
        if user.role < ADMIN:
            raise relay_error(403, "Only tokens of administrators can select a channel.")
        row = self._base.channels.rows.get(int(text)) if text.isdecimal() else None
        if row is None:
            raise relay_error(400, "The selected channel does not exist.")
        if row.status != ENABLED:
            raise relay_error(403, "The selected channel is disabled.")
        return row.id

    # calls

    async def _call(self, call: CompatCall) -> None:
        caller = await self.caller(call)
        path = "/v1/embeddings" if "model" in call.names else call.path.rstrip("/")
        body = await self._checked_body(call, path, caller)
        selected = channel_name(caller.channel) if caller.channel else f"group:{caller.user.group}"
        version = call.query.get("api-version", "")
        if _AZURE_VERSION.fullmatch(version):
            selected += f"@{version}"
        headers = self._headers(call, caller.principal)
        headers.append((PROVIDER.encode(), selected.encode("latin-1", "replace")))
        send = call.send
        if path not in _OWN_FORMAT:
            send = RelayErrors(call.send, caller.user.group)
        await call.forward(
            self._shim,
            path=path,
            headers=headers,
            body=body,
            extra=Caller(caller.principal).extra,
            send=send,
        )

    async def _checked_body(self, call: CompatCall, path: str, caller: RelayCaller) -> bytes | None:
        """Return the body to send if it is not the caller's own: with the model of the path, or
        a default one.

        Raises APIError: 400 for invalid JSON and a missing member, 403 for a model that the token
        may not use, 503 if no channel serves the model.
        """
        if call.header("content-type").startswith("multipart/"):
            return None  # the shim finds the model in the form
        try:
            fields = await call.fields()
        except APIError as error:
            raise relay_error(400, error.message, "bind_request_body_failed") from error
        group = caller.user.group
        where = channel_name(caller.channel) if caller.channel else f"group:{group}"
        body: bytes | None = None
        model = call.names.get("model") or fields.get("model")
        if not model:
            defaults = _DEFAULT_MODELS.get(path, ())
            served = (name for name in defaults if self._base.channels.candidates(where, name))
            model = next(served, defaults[0] if defaults else None)
        if model != fields.get("model"):
            body = _json.dumps({**fields, "model": model})
        if isinstance(model, str) and model:
            if not caller.principal.may_use(model):
                raise relay_error(
                    403, f"This token may not use the model {model!r}.", None, "model"
                )
            if not self._base.channels.candidates(where, model):
                raise no_channel_error(group, model)
        required = _REQUIRED.get(path)
        if required is not None and not fields.get(required):
            message = f"{required}: is required and must not be empty."
            raise relay_error(400, message, "required_field_missing", required)
        return body

    def _headers(self, call: CompatCall, principal: Principal) -> RawHeaders:
        return prepared_headers(call, Caller(principal))

    async def _administer(self, call: CompatCall) -> None:
        """Pass on a request for what all users of a channel's account share."""
        caller = await self.caller(call)
        if caller.user.role < ADMIN:
            raise relay_error(403, "Only tokens of administrators can use this path.")
        await self._forward(call, caller)

    async def _stored(self, call: CompatCall) -> None:
        """Pass on a request for files or batches: users have their own, administrators all."""
        caller = await self.caller(call)
        await self._forward(call, caller, own=caller.user.role < ADMIN)

    async def _forward(self, call: CompatCall, caller: RelayCaller, *, own: bool = False) -> None:
        """Pass a request on to the channel that has the files: always the same one."""
        row = self._file_channel(caller)
        if row is None:
            raise no_channel_error(caller.user.group, "files")
        provider = self._base.channels.provider(row.id)
        if provider is None:
            raise no_channel_error(caller.user.group, "files")
        known = self._proxies.get((row.id, own))
        if known is None or known[0] is not provider:
            known = provider, self._quota(self._files_app(provider, own=own))
            self._proxies[row.id, own] = known
        await call.forward(
            known[1],
            headers=self._headers(call, caller.principal),
            extra=Caller(caller.principal).extra,
            send=RelayErrors(call.send, caller.user.group),
        )

    def _files_app(self, provider: Provider, *, own: bool) -> ASGIApp:
        options: dict[str, Any] = {"transport": self._app.transport, "record": self._record}
        if not own:
            options["ownership"] = ResourceOwnership(check="off")
            return PassthroughProxy(provider, paths="all", **options)
        ownership = ResourceOwnership(check="strict", store=self._base.data.store)
        resources = VendorResources(provider, [OPENAI_CHAT], options, ownership=ownership)

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await resources(scope, receive, send)

        return serve

    def _file_channel(self, caller: RelayCaller) -> ChannelRow | None:
        rows = self._base.channels.rows
        if caller.channel:
            return rows.get(caller.channel)
        for row in rows.values():
            provider = self._base.channels.provider(row.id)
            fits = provider is not None and provider.dialect is OPENAI_CHAT
            if fits and caller.user.group in groups_of(row):
                return row
        return None

    # models

    async def _models(self, call: CompatCall) -> None:
        caller = await self.caller(call)
        await call.json({"object": "list", "data": self._listed(caller)})

    async def _model(self, call: CompatCall) -> None:
        caller = await self.caller(call)
        wanted = call.names["model"]
        for model in self._listed(caller):
            if model["id"] == wanted:
                await call.json(model)
                return
        message = f"The model '{wanted}' does not exist"
        error = {"message": message, "type": "invalid_request_error", "param": "model"}
        await call.json({"error": {**error, "code": "model_not_found"}})  # status 200, as One API

    def _listed(self, caller: RelayCaller) -> list[dict[str, Any]]:
        names = self._base.channels.group_models(caller.user.group)
        return [model_object(name) for name in names if caller.principal.may_use(name)]

    # billing

    async def _amounts(self, call: CompatCall) -> tuple[float, float, int]:
        """Return what is left and what was used in the displayed currency, and the expiry."""
        caller = await self.caller(call)
        options = self._base.options
        rows = all_rows(self._base.data.token_rows, f"{caller.user.id:010d}.")
        row = await anext((row async for row in rows if row.token_id == caller.token_id), None)
        if options.on("DisplayTokenStatEnabled") and row is not None:
            balance = (await self._base.balances.of_tokens([row]))[row.id]
        else:
            balance = (await self._base.balances.of_users([caller.user]))[caller.user.id]
        worth = options.number("QuotaPerUnit") if options.on("DisplayInCurrencyEnabled") else 1
        left = (balance.left + balance.used) / worth
        if row is not None and row.unlimited_quota:
            left = _UNLIMITED
        expires = row.expired_time if row is not None and row.expired_time > 0 else 0
        return left, balance.used / worth, expires

    async def _subscription(self, call: CompatCall) -> None:
        limit, _, expires = await self._amounts(call)
        await call.json(
            {
                "object": "billing_subscription",
                "has_payment_method": True,
                "soft_limit_usd": limit,
                "hard_limit_usd": limit,
                "system_hard_limit_usd": limit,
                "access_until": expires,
            }
        )

    async def _usage(self, call: CompatCall) -> None:
        _, used, _ = await self._amounts(call)
        await call.json({"object": "list", "total_usage": used * 100})

    def _refuse(self, error: APIError) -> Any:
        async def run(call: CompatCall) -> None:
            await self.caller(call)
            await policy.refuse(error)(call)

        return run


def _disabled(row: ChannelRow) -> ChannelRow:
    return msgspec.structs.replace(row, status=3)
