"""Write the rows of One API's tables into the store: users, channels, tokens, codes, options.

Every row is checked before any is written, and written whole or not at all; a row that exists is
left as it is, so that a second run changes nothing. Numbers are kept. Keys and codes are encrypted,
of tokens the relay needs only the digest. The bcrypt hashes of passwords are taken, except that of
`root`, whose password is configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy.accounts import RowExistsError
from asgi_aiproxy.accounts.passwords import is_bcrypt
from asgi_aiproxy.accounts.users import EmailTakenError, NameTakenError, User
from asgi_aiproxy.compat.oneapi.channels import make_provider, mapping_of
from asgi_aiproxy.compat.oneapi.options import OptionError, Options, check_option
from asgi_aiproxy.compat.oneapi.rows import (
    DISABLED,
    ENABLED,
    ROOT,
    THIRD,
    ChannelRow,
    OneAPIData,
    RedemptionRow,
    TokenRow,
    key_digest,
    row_key,
    token_key,
)
from asgi_aiproxy.compat.oneapi.users import OneAPIUsers
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.importer.plan import Plan
from asgi_aiproxy.ip_ranges import check_networks
from asgi_aiproxy.keys.key import validate_key
from asgi_aiproxy.principal import Budget, Limits

_BATCH = 1000
_MIN_KEY = 17
_DELETED_USER = 3
_USED = "oneapi.used"
_KEPT = "is there already and is left as it is"


class OneAPIRows:
    """The rows of a plan: `check` reads them, `write` stores those that are valid."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._channels: dict[int, tuple[str, ChannelRow, str, int]] = {}
        self._users: dict[int, tuple[str, User, int, int]] = {}
        self._tokens: dict[int, tuple[str, TokenRow, str, int]] = {}
        self._redemptions: dict[int, tuple[str, RedemptionRow, str]] = {}
        self._options: dict[str, str] = {}
        self.written = 0

    def check(self) -> None:
        """Read all rows of the plan, and reject those that are invalid."""
        readers = {
            "channels": self._read_channel,
            "users": self._read_user,
            "tokens": self._read_token,
            "redemptions": self._read_redemption,
            "options": self._read_option,
        }
        for table, reader in readers.items():
            for place, row in self._plan.tables.get(table, []):
                try:
                    reader(place, row)
                except (ConfigurationError, OptionError, ValueError) as error:
                    self._plan.reject(place, str(error).rstrip("."))

    # reading

    def _read_channel(self, place: str, row: Mapping[str, Any]) -> None:
        id = _number(row, "id", self._channels)
        key = _text(row, "key").strip()
        if not key:
            raise ValueError("key: is empty")
        priority = row.get("priority")
        made = ChannelRow(
            id=id,
            type=_integer(row, "type"),
            key_digest=key_digest(key),
            status=_integer(row, "status", ENABLED),
            name=_text(row, "name"),
            weight=max(0, _integer(row, "weight")),
            created_time=_integer(row, "created_time"),
            test_time=_integer(row, "test_time"),
            response_time=_integer(row, "response_time"),
            base_url=_text(row, "base_url"),
            other=_text(row, "other") or None,
            balance=float(row.get("balance") or 0),
            balance_updated_time=_integer(row, "balance_updated_time"),
            models=_text(row, "models"),
            group=_text(row, "group") or "default",
            model_mapping=_text(row, "model_mapping"),
            priority=int(priority) if isinstance(priority, int) else 0,
            config=_text(row, "config"),
            system_prompt=_text(row, "system_prompt") or None,
        )
        mapping_of(made)
        provider = make_provider(made, key)
        for given in provider.keys.keys.values() if provider.keys is not None else ():
            validate_key(given, provider.name)
        self._channels[id] = place, made, key, _integer(row, "used_quota")

    def _read_user(self, place: str, row: Mapping[str, Any]) -> None:
        id = _number(row, "id", self._users)
        name = _text(row, "username")
        if not name:
            raise ValueError("username: is empty")
        if _integer(row, "status", ENABLED) == _DELETED_USER:
            self._plan.leave(place, "the user was deleted")
            return
        role, password = _integer(row, "role", 1), _text(row, "password")
        made = User(
            id=id,
            username=name,
            password=password if role != ROOT and is_bcrypt(password) else "",
            display_name=_text(row, "display_name"),
            role=role,
            enabled=_integer(row, "status", ENABLED) == ENABLED,
            email=_text(row, "email"),
            email_verified=bool(_text(row, "email")),
            group=_text(row, "group") or "default",
            invite_code=_text(row, "aff_code"),
            inviter_id=_integer(row, "inviter_id"),
            access_token=key_digest(token) if (token := _text(row, "access_token")) else "",
        )
        quota = max(0, min(_integer(row, "quota"), 2**53 - 1))
        self._users[id] = place, made, quota, _integer(row, "used_quota")

    def _read_token(self, place: str, row: Mapping[str, Any]) -> None:
        id = _number(row, "id", self._tokens)
        key = _text(row, "key").strip().removeprefix("sk-")
        if len(key) < _MIN_KEY or not key.isascii() or not key.isalnum():
            raise ValueError(f"key: must have at least {_MIN_KEY} letters and digits")
        subnet = _text(row, "subnet")
        check_networks([part.strip() for part in subnet.split(",") if part.strip()])
        status = _integer(row, "status", ENABLED)
        made = TokenRow(
            id=id,
            user_id=_integer(row, "user_id"),
            token_id="",
            key="",
            name=_text(row, "name") or f"token {id}",
            status=DISABLED if status == DISABLED else ENABLED,
            created_time=_integer(row, "created_time"),
            expired_time=_integer(row, "expired_time", -1),
            unlimited_quota=bool(row.get("unlimited_quota")),
            remain_quota=_integer(row, "remain_quota"),
            models=_text(row, "models") or None,
            subnet=subnet or None,
        )
        self._tokens[id] = place, made, key, _integer(row, "used_quota")

    def _read_redemption(self, place: str, row: Mapping[str, Any]) -> None:
        id = _number(row, "id", self._redemptions)
        quota, key = _integer(row, "quota"), _text(row, "key").strip()
        if not 1 <= quota < 2**53:
            raise ValueError("quota: must be at least 1")
        if len(key) < 24 or not key.isascii() or not key.isalnum():
            raise ValueError("key: must have at least 24 letters and digits")
        made = RedemptionRow(
            id=id,
            user_id=_integer(row, "user_id"),
            key="",
            name=_text(row, "name"),
            quota=quota,
            status=_integer(row, "status", ENABLED),
            created_time=_integer(row, "created_time"),
            redeemed_time=_integer(row, "redeemed_time"),
        )
        self._redemptions[id] = place, made, key

    def _read_option(self, place: str, row: Mapping[str, Any]) -> None:
        name, value = _text(row, "key"), row.get("value")
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = str(value if value is not None else "")
        needed = {key: str(other.get("value") or "") for _, other in self._plan.tables["options"]
                  if isinstance(key := other.get("key"), str)}  # fmt: skip
        check_option(name, text, needed)
        self._options[name] = text

    # writing

    async def write(self, data: OneAPIData) -> None:
        """Store the rows. Raises StoreUnavailableError."""
        await self._write_users(data)
        await self._write_channels(data)
        await self._write_tokens(data)
        await self._write_redemptions(data)
        await self._write_options(data)
        numbered: dict[str, Mapping[int, Any]] = {
            "channels": self._channels,
            "tokens": self._tokens,
            "redemptions": self._redemptions,
        }
        for kind, rows in numbered.items():
            if rows:
                await data.reserve_ids(kind, max(rows))

    async def _write_users(self, data: OneAPIData) -> None:
        users = OneAPIUsers(data)
        for place, user, quota, used in self._users.values():
            if await users.find(user.id) is not None:
                self._plan.leave(place, _KEPT)
                continue
            try:
                try:
                    await users.create(user, quota)
                except EmailTakenError:
                    unverified = msgspec.structs.replace(user, email_verified=False)
                    await users.create(unverified, quota)
            except NameTakenError:
                self._plan.reject(place, f"another user has the name {user.username!r}")
                continue
            await data.store.add(_USED, {f"user:{user.id}": used}, once=f"import:user:{user.id}")
            password = "" if user.role == ROOT or user.password else "; set a new password"
            self._taken(place, f"the user {user.username} with its quota{password}")

    async def _write_channels(self, data: OneAPIData) -> None:
        names = list(self._channels)
        for start in range(0, len(names), _BATCH):
            batch = [self._channels[id] for id in names[start : start + _BATCH]]
            existing = await data.store.rows(
                data.channels.name, [row_key(row.id) for _, row, _, _ in batch]
            )
            fresh = [item for item in batch if row_key(item[1].id) not in existing]
            rows = {
                row_key(row.id): msgspec.structs.replace(
                    row, key=data.encrypt(key, f"channel:{row.id}")
                )
                for _, row, key, _ in fresh
            }
            if rows:
                await data.channels.create_many(rows)
                used = {f"channel:{row.id}": amount for _, row, _, amount in fresh if amount}
                if used:
                    await data.store.add(_USED, used, once=f"import:channels:{fresh[0][1].id}")
            for place, row, _, _ in batch:
                if row_key(row.id) in existing:
                    self._plan.leave(place, _KEPT)
                else:
                    self._taken(place, f"the channel {row.name or row.id}, its key encrypted")

    async def _write_tokens(self, data: OneAPIData) -> None:
        for place, row, key, used in self._tokens.values():
            if await data.token_rows.find(token_key(row.user_id, row.id)) is not None:
                self._plan.leave(place, _KEPT)
                continue
            user = await OneAPIUsers(data).find(row.user_id)
            if user is None:
                self._plan.reject(place, f"its user {row.user_id} does not exist")
                continue
            try:
                _, token = await data.tokens.issue(
                    secret=f"sk-{key}", name=row.name, account=user.account
                )
            except (RowExistsError, ConfigurationError) as error:
                self._plan.reject(place, str(error).rstrip("."))
                continue
            await self._finish_token(data, row, token.id, key)
            await data.store.add(
                _USED, {f"token:{token.id}": used}, once=f"import:token:{token.id}"
            )
            self._taken(place, f"the token {row.name}")

    async def _finish_token(self, data: OneAPIData, row: TokenRow, token_id: str, key: str) -> None:
        quota = max(0, min(row.remain_quota, 2**53 - 1))
        limits = Limits() if row.unlimited_quota else Limits(budgets=(Budget.units(quota),))
        changes = {
            "enabled": row.status == ENABLED,
            "expires": None if row.expired_time == -1 else float(row.expired_time),
            "models": tuple(part.strip() for part in (row.models or "").split(",") if part.strip()),
            "networks": tuple(p.strip() for p in (row.subnet or "").split(",") if p.strip()),
            "limits": limits,
        }
        await data.tokens.table.edit(
            token_id, lambda token: msgspec.structs.replace(token, **changes)
        )
        made = msgspec.structs.replace(
            row, token_id=token_id, key=data.encrypt(key, f"token:{row.id}")
        )
        await data.token_rows.put(token_key(row.user_id, row.id), made)

    async def _write_redemptions(self, data: OneAPIData) -> None:
        for place, row, key in self._redemptions.values():
            if await data.redemptions.find(row_key(row.id)) is not None:
                self._plan.leave(place, _KEPT)
                continue
            if row.status != THIRD:
                try:
                    await data.vouchers.adopt(key, row.quota, unit="units", name=row.name)
                except RowExistsError:
                    self._plan.reject(place, "another code has the same first eight characters")
                    continue
            made = msgspec.structs.replace(row, key=data.encrypt(key, f"redemption:{row.id}"))
            await data.redemptions.create(row_key(row.id), made)
            await data.store.put("oneapi.redemption_keys", key_digest(key), str(row.id).encode())
            self._taken(place, f"the redemption code {row.name or row.id}, encrypted")

    async def _write_options(self, data: OneAPIData) -> None:
        options = Options(data)
        await options.load()
        for name, value in self._options.items():
            if options.values.get(name) == value:
                self._plan.leave(f"options {name}", "has this value already")
                continue
            await options.set(name, value)
            self._taken(f"options {name}", "the option")

    def _taken(self, place: str, text: str) -> None:
        self.written += 1
        self._plan.take(place, text)


def _number(row: Mapping[str, Any], name: str, known: Mapping[int, Any]) -> int:
    id = _integer(row, name)
    if not 0 < id < 10**10:
        raise ValueError(f"{name}: must be a number above 0")
    if id in known:
        raise ValueError(f"{name}: {id} is there twice")
    return id


def _integer(row: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = row.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{name}: must be an integer")
    return int(value)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"{name}: must be a string")
    return str(value)
