"""Management calls about users: sign-up, sessions, one's own profile, and administration."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from asgi_aiproxy.accounts import VoucherError
from asgi_aiproxy.accounts.users import EmailTakenError, NameTakenError, User, new_invite_code
from asgi_aiproxy.compat.oneapi import management as m
from asgi_aiproxy.compat.oneapi.balances import Balance
from asgi_aiproxy.compat.oneapi.logs import MANAGE, SYSTEM, TOP_UP
from asgi_aiproxy.compat.oneapi.redemption_routes import Redemptions
from asgi_aiproxy.compat.oneapi.rows import ADMIN, COMMON, DISABLED, ENABLED, ROOT, key_digest
from asgi_aiproxy.compat.oneapi.token_routes import TokenRoutes
from asgi_aiproxy.compat.oneapi.users import SESSION_SECONDS
from asgi_aiproxy.compat.routing import CompatCall, Route

_MAX_NAME, _MIN_PASSWORD, _MAX_PASSWORD, _MAX_DISPLAY, _MAX_EMAIL = 12, 8, 20, 20, 50
_MAIL = "This gateway sends no mail: an administrator can set a password or an address."
_OAUTH = "Signing in with another service is done by the application around this gateway."
_ORDERS = ("quota", "used_quota", "request_count")
_BLANK = User(id=0, username="", role=0)


class UserRoutes:
    """The routes below `/api/user`, and `/api/topup`."""

    def __init__(self, base: m.Management, tokens: TokenRoutes, redemptions: Redemptions) -> None:
        self._base = base
        self._tokens = tokens
        self._redemptions = redemptions

    def routes(self) -> list[Route]:
        """Return all routes."""
        mine, admin = self._base.route, m.ADMINISTRATOR
        return [
            Route("POST", "/api/user/register", self._base.open_route(self._register)),
            Route("POST", "/api/user/login", self._base.open_route(self._login)),
            Route("GET", "/api/user/logout", self._base.open_route(self._logout)),
            Route("POST", "/api/user/reset", self._base.open_route(self._no_mail)),
            Route("GET", "/api/verification", self._base.open_route(self._no_mail)),
            Route("GET", "/api/reset_password", self._base.open_route(self._no_mail)),
            Route("GET", "/api/oauth/email/bind", mine(m.USER, self._no_mail_bind)),
            Route("GET", "/api/oauth/wechat/bind", mine(m.USER, self._no_oauth_bind)),
            Route("GET", "/api/oauth/*", self._base.open_route(self._no_oauth)),
            Route("GET", "/api/user/self", mine(m.USER, self._self)),
            Route("PUT", "/api/user/self", mine(m.USER, self._edit_self)),
            Route("DELETE", "/api/user/self", mine(m.USER, self._delete_self)),
            Route("GET", "/api/user/token", mine(m.USER, self._access_token)),
            Route("GET", "/api/user/aff", mine(m.USER, self._aff)),
            Route("POST", "/api/user/topup", mine(m.USER, self._top_up)),
            Route("GET", "/api/user/dashboard", mine(m.USER, self._dashboard)),
            Route("GET", "/api/user/available_models", mine(m.USER, self._available_models)),
            Route("GET", "/api/user", mine(admin, self._page)),
            Route("GET", "/api/user/search", mine(admin, self._search)),
            Route("POST", "/api/user/manage", mine(admin, self._manage)),
            Route("POST", "/api/user", mine(admin, self._create)),
            Route("PUT", "/api/user", mine(admin, self._edit)),
            Route("GET", "/api/user/:id", mine(admin, self._get)),
            Route("DELETE", "/api/user/:id", mine(admin, self._delete)),
            Route("POST", "/api/topup", mine(admin, self._admin_top_up)),
        ]

    # without a session

    async def _register(self, call: CompatCall) -> Any:
        options = self._base.options
        if not (options.on("RegisterEnabled") and options.on("PasswordRegisterEnabled")):
            raise m.ManagementError("The administrator has switched registration off.")
        if options.on("EmailVerificationEnabled"):
            raise m.ManagementError(_MAIL)
        body = await call.fields()
        name = _checked_name(m.text_member(body, "username"))
        password = _checked_password(m.text_member(body, "password"))
        inviter = await self._inviter(m.text_member(body, "aff_code"))
        user = await self._new_user(name, password, "", inviter)
        if inviter is not None:
            for invited, option in ((user, "QuotaForInvitee"), (inviter, "QuotaForInviter")):
                if (quota := options.number(option)) > 0:
                    await self._base.balances.add_user(invited, quota)
                    await self._base.logs.add(invited, SYSTEM, "Reward of an invitation", quota)
        return m.NO_DATA

    async def _inviter(self, code: str) -> User | None:
        return await self._base.users.by_invite_code(code)

    async def _new_user(
        self, name: str, password: str, display_name: str, inviter: User | None = None
    ) -> User:
        user = User(
            id=0,
            username=name,
            password=await self._base.users.passwords.hash(password),
            display_name=display_name or name,
            invite_code=new_invite_code(4),
            inviter_id=inviter.id if inviter is not None else 0,
        )
        quota = self._base.options.number("QuotaForNewUser")
        try:
            user = await self._base.users.create(user, quota)
        except NameTakenError as error:
            raise m.ManagementError("The username is taken.") from error
        if quota > 0:
            await self._base.logs.add(user, SYSTEM, "Quota of a new user", quota)
        await self._tokens.create(user, {"name": "default", "unlimited_quota": True,
                                         "remain_quota": -1})  # fmt: skip
        return user

    async def _login(self, call: CompatCall) -> Any:
        if not self._base.options.on("PasswordLoginEnabled"):
            raise m.ManagementError(
                "The administrator has switched signing in with a password off."
            )
        body = await call.fields()
        name, password = m.text_member(body, "username"), m.text_member(body, "password")
        if not name or not password:
            raise m.ManagementError("The username and the password are required.")
        await self._base.check_failures(call, 0)
        user = await self._base.users.by_name(name)
        stored = user.password if user is not None else ""
        valid = await self._base.users.passwords.verify(password, stored)
        if user is not None and user.role == ROOT and self._base.is_root_password(password):
            valid = True
        if user is None or not valid or not user.enabled:
            await self._base.check_failures(call, 1)
            raise m.ManagementError(
                "The username or the password is wrong, or the user is disabled."
            )
        if user.second_factor:
            raise m.ManagementError("This user has a second factor: sign in at the console.")
        if self._base.users.passwords.is_outdated(stored) and user.role != ROOT:
            user = await self._rehashed(user, password)
        cookie = await self._base.users.open_session(user)
        secure = "; Secure" if call.scope.get("scheme") == "https" else ""
        value = f"{m.SESSION_COOKIE}={cookie}; Path=/; Max-Age={SESSION_SECONDS}"
        value += f"; HttpOnly; SameSite=Strict{secure}"
        shown = {"id": user.id, "username": user.username, "display_name": user.display_name}
        shown |= {"role": user.role, "status": ENABLED if user.enabled else DISABLED}
        blank = _shown(_BLANK, Balance())
        await m.succeed(call, {**blank, **shown}, [(b"set-cookie", value.encode())])

    async def _rehashed(self, user: User, password: str) -> User:
        """Store a new hash of the password of a user, unless it was changed meanwhile."""
        fresh = await self._base.users.passwords.hash(password)
        return await self._base.users.edit(
            user.id,
            lambda row: (
                msgspec.structs.replace(row, password=fresh)
                if row.password == user.password
                else row
            ),
        )

    async def _logout(self, call: CompatCall) -> Any:
        value = f"{m.SESSION_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
        await m.succeed(call, m.NO_DATA, [(b"set-cookie", value.encode())])

    async def _no_mail(self, call: CompatCall) -> Any:
        raise m.ManagementError(_MAIL)

    async def _no_mail_bind(self, call: CompatCall, user: User) -> Any:
        raise m.ManagementError(_MAIL)

    async def _no_oauth(self, call: CompatCall) -> Any:
        raise m.ManagementError(_OAUTH)

    async def _no_oauth_bind(self, call: CompatCall, user: User) -> Any:
        raise m.ManagementError(_OAUTH)

    # oneself

    async def _self(self, call: CompatCall, user: User) -> Any:
        return (await self._shown_users([user]))[0]

    async def _edit_self(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        changes = await self._profile_changes(body)
        await self._change(user, changes)
        return m.NO_DATA

    async def _profile_changes(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names and the password of a body that are not empty, as members of a user."""
        changes: dict[str, Any] = {}
        if name := m.text_member(body, "username"):
            changes["username"] = _checked_name(name)
        if display := m.text_member(body, "display_name"):
            changes["display_name"] = _checked_display(display)
        if password := m.text_member(body, "password"):
            changes["password"] = await self._base.users.passwords.hash(_checked_password(password))
        return changes

    async def _delete_self(self, call: CompatCall, user: User) -> Any:
        if user.role == ROOT:
            raise m.ManagementError("The user root cannot be deleted.")
        await self._base.users.delete(user)
        return m.NO_DATA

    async def _access_token(self, call: CompatCall, user: User) -> Any:
        token = secrets.token_hex(16)
        await self._base.users.edit(
            user.id, lambda row: msgspec.structs.replace(row, access_token=key_digest(token))
        )
        return token

    async def _aff(self, call: CompatCall, user: User) -> Any:
        if not user.invite_code:
            code = new_invite_code(4)
            user = await self._base.users.edit(
                user.id, lambda row: msgspec.structs.replace(row, invite_code=code)
            )
        return user.invite_code

    async def _top_up(self, call: CompatCall, user: User) -> Any:
        key = m.text_member(await call.fields(), "key").strip()
        if not key:
            raise m.ManagementError("key: the redemption code is required.")
        try:
            quota = await self._redemptions.redeem(key, user)
        except VoucherError as error:
            raise m.ManagementError(str(error)) from error
        await self._base.logs.add(user, TOP_UP, "Redeemed a code", quota)
        return quota

    async def _dashboard(self, call: CompatCall, user: User) -> Any:
        now = datetime.fromtimestamp(self._base.data.clock(), UTC)
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        since = day.timestamp() - 6 * 86400
        sums: dict[tuple[str, str], dict[str, Any]] = {}
        for record in await self._base.logs.records(user, since):
            if not record.usage:
                continue
            date = datetime.fromtimestamp(record.started, UTC).strftime("%Y-%m-%d")
            model = record.requested_model or record.model
            row = sums.setdefault((date, model), {
                "Day": date, "ModelName": model, "RequestCount": 0, "Quota": 0,
                "PromptTokens": 0, "CompletionTokens": 0,
            })  # fmt: skip
            row["RequestCount"] += 1
            row["Quota"] += record.units or 0
            row["PromptTokens"] += record.usage.input
            row["CompletionTokens"] += record.usage.output
        return [sums[key] for key in sorted(sums)]

    async def _available_models(self, call: CompatCall, user: User) -> Any:
        await self._base.channels.refresh()
        return self._base.channels.group_models(user.group)

    # administration

    async def _page(self, call: CompatCall, user: User) -> Any:
        rows = [row async for row in self._base.users.all()]
        return await m.shown_page(call, rows, self._shown_users, _ORDERS)

    async def _search(self, call: CompatCall, user: User) -> Any:
        keyword = call.query.get("keyword", "")
        rows = [
            row
            async for row in self._base.users.all()
            if m.matches_keyword(keyword, row.id, row.username, row.email, row.display_name)
        ]
        return await self._shown_users(rows)

    async def _get(self, call: CompatCall, user: User) -> Any:
        found = await self._base.user(m.number(call.names["id"]))
        if user.role != ROOT:
            _check_rank(user, found)
        return (await self._shown_users([found]))[0]

    async def _create(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        if m.int_member(body, "role") >= user.role:
            raise m.ManagementError("You cannot create a user with your role or a higher one.")
        name = _checked_name(m.text_member(body, "username"))
        password = _checked_password(m.text_member(body, "password"))
        display = m.text_member(body, "display_name")
        await self._new_user(name, password, _checked_display(display) if display else "")
        return m.NO_DATA

    async def _edit(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        found = await self._base.user(m.int_member(body, "id"))
        if user.role != ROOT:
            _check_rank(user, found)
        role = m.int_member(body, "role")
        if role >= user.role:
            raise m.ManagementError("You cannot give a user your role or a higher one.")
        changes = await self._profile_changes(body)
        if email := m.text_member(body, "email"):
            if len(email) > _MAX_EMAIL:
                raise m.ManagementError(f"email: must have at most {_MAX_EMAIL} characters.")
            changes |= {"email": email, "email_verified": True}
        if group := m.text_member(body, "group"):
            changes["group"] = group
        if role:
            changes["role"] = role
        if status := m.int_member(body, "status"):
            changes["enabled"] = status == ENABLED
        after = await self._change(found, changes)
        quota = m.int_member(body, "quota")
        if quota:  # like all members, zero is not written
            before = (await self._base.balances.of_users([after]))[after.id].left
            if quota != before:
                await self._base.balances.set_user(after, quota)
                message = f"An administrator changed the quota from {before} to {quota}"
                await self._base.logs.add(after, MANAGE, message)
        return m.NO_DATA

    async def _manage(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        found = await self._base.users.by_name(m.text_member(body, "username"))
        if found is None:
            raise m.ManagementError("The user does not exist.")
        if user.role != ROOT:
            _check_rank(user, found)
        action = m.text_member(body, "action")
        if found.role == ROOT and action in ("disable", "delete", "demote"):
            raise m.ManagementError(f"The user root cannot be changed: {action}.")
        if action == "delete":
            await self._base.users.delete(found)
            return _ranks(found)
        if action == "promote" and user.role != ROOT:
            raise m.ManagementError("Only the user root can promote users.")
        if action == "promote" and found.role >= ADMIN:
            raise m.ManagementError("The user is an administrator already.")
        if action == "demote" and found.role == COMMON:
            raise m.ManagementError("The user is a common user already.")
        changes: dict[str, dict[str, Any]] = {
            "disable": {"enabled": False},
            "enable": {"enabled": True},
            "promote": {"role": ADMIN},
            "demote": {"role": COMMON},
        }
        after = await self._change(found, changes.get(action, {}))
        return _ranks(after)

    async def _delete(self, call: CompatCall, user: User) -> Any:
        found = await self._base.user(m.number(call.names["id"]))
        _check_rank(user, found)
        await self._base.users.delete(found)
        await call.text("")  # as in One API

    async def _admin_top_up(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        found = await self._base.user(m.int_member(body, "user_id"))
        quota = m.int_member(body, "quota")
        await self._base.balances.add_user(found, quota)
        remark = m.text_member(body, "remark") or "An administrator added quota"
        await self._base.logs.add(found, TOP_UP, remark, quota)
        return m.NO_DATA

    async def _change(self, user: User, changes: Mapping[str, Any]) -> User:
        try:
            return await self._base.users.edit(
                user.id, lambda row: msgspec.structs.replace(row, **changes)
            )
        except NameTakenError as error:
            raise m.ManagementError("The username is taken.") from error
        except EmailTakenError as error:
            raise m.ManagementError("The e-mail address is taken.") from error

    async def _shown_users(self, users: list[User]) -> list[dict[str, Any]]:
        balances = await self._base.balances.of_users(users)
        return [_shown(user, balances[user.id]) for user in users]


def _check_rank(user: User, other: User) -> None:
    if user.role <= other.role:
        raise m.ManagementError("You cannot see or change a user with your role or a higher one.")


def _ranks(user: User) -> dict[str, Any]:
    blank = _shown(_BLANK, Balance())
    return {**blank, "role": user.role, "status": ENABLED if user.enabled else DISABLED}


def _shown(user: User, balance: Balance) -> dict[str, Any]:
    """Return a user as One API shows it, without password and access token."""
    return {
        "id": user.id,
        "username": user.username,
        "password": "",
        "display_name": user.display_name,
        "role": user.role,
        "status": ENABLED if user.enabled else DISABLED,
        "email": user.email,
        "github_id": "",
        "wechat_id": "",
        "lark_id": "",
        "oidc_id": "",
        "verification_code": "",
        "access_token": "",
        "quota": balance.left,
        "used_quota": balance.used,
        "request_count": balance.requests,
        "group": user.group,
        "aff_code": user.invite_code,
        "inviter_id": user.inviter_id,
    }


def _checked_name(name: str) -> str:
    if not name.strip() or len(name) > _MAX_NAME:
        raise m.ManagementError(f"username: must have 1 to {_MAX_NAME} characters.")
    return name


def _checked_password(password: str) -> str:
    if not _MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
        raise m.ManagementError(
            f"password: must have {_MIN_PASSWORD} to {_MAX_PASSWORD} characters."
        )
    return password


def _checked_display(name: str) -> str:
    if len(name) > _MAX_DISPLAY:
        raise m.ManagementError(f"display_name: must have at most {_MAX_DISPLAY} characters.")
    return name
