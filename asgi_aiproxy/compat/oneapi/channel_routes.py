"""Management calls about channels: one key of a vendor each, with its models and groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.compat.oneapi import management as m
from asgi_aiproxy.compat.oneapi.channels import (
    make_provider,
    mapping_of,
    models_of,
    type_error,
)
from asgi_aiproxy.compat.oneapi.models import model_object
from asgi_aiproxy.compat.oneapi.rows import (
    DISABLED,
    ENABLED,
    THIRD,
    ChannelRow,
    all_rows,
    key_digest,
    row_key,
)
from asgi_aiproxy.compat.oneapi.vendor_balances import (
    READABLE_TYPES,
    BalanceError,
    read_balance,
)
from asgi_aiproxy.compat.routing import CompatCall, Route
from asgi_aiproxy.errors import AIProxyError, ConfigurationError
from asgi_aiproxy.services.key_test import check_key

_TEST_MODEL = "gpt-3.5-turbo"
# Members that an edit writes even if they are empty; others are only written if they are not.
_OPTIONAL = ("weight", "base_url", "other", "model_mapping", "priority", "system_prompt")
_TEXTS = ("name", "models", "group", "config")


class ChannelRoutes:
    """The routes below `/api/channel`."""

    def __init__(self, base: m.Management) -> None:
        self._base = base
        self._testing: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        """Return all routes."""
        path = "/api/channel"
        table = [
            ("GET", path, self._page),
            ("GET", f"{path}/search", self._search),
            ("GET", f"{path}/models", self._models),
            ("GET", f"{path}/test", self._test_all),
            ("GET", f"{path}/test/:id", self._test),
            ("GET", f"{path}/update_balance", self._update_balances),
            ("GET", f"{path}/update_balance/:id", self._update_balance),
            ("POST", path, self._create),
            ("PUT", path, self._edit),
            ("DELETE", f"{path}/disabled", self._delete_disabled),
            ("GET", f"{path}/:id", self._get),
            ("DELETE", f"{path}/:id", self._delete),
        ]
        return [
            Route(method, where, self._base.route(m.ADMINISTRATOR, run))
            for method, where, run in table
        ]

    async def aclose(self) -> None:
        """Stop a test of all channels."""
        if self._testing is not None:
            self._testing.cancel()
            await asyncio.wait((self._testing,))

    async def _page(self, call: CompatCall, user: User) -> Any:
        rows = [row async for row in all_rows(self._base.data.channels)]
        return await self._shown(m.page_of(call, rows))

    async def _search(self, call: CompatCall, user: User) -> Any:
        keyword = call.query.get("keyword", "")
        digest = key_digest(keyword)
        rows = [
            row
            async for row in all_rows(self._base.data.channels)
            if m.matches_keyword(keyword, row.id, row.name) or row.key_digest == digest
        ]
        return await self._shown(rows)

    async def _get(self, call: CompatCall, user: User) -> Any:
        return (await self._shown([await self._row(m.number(call.names["id"]))]))[0]

    async def _models(self, call: CompatCall, user: User) -> Any:
        """List models for a channel to choose from: those of channels, and those with a ratio."""
        await self._base.channels.refresh()
        rows = self._base.channels.rows.values()
        names = {name for row in rows for name in models_of(row)}
        names |= self._base.options.model_ratios().keys()
        data = [model_object(name) for name in sorted(names)]
        await call.json({"object": "list", "data": data, "success": True, "message": ""})

    async def _create(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        fields = _fields(body)
        keys = [key.strip() for key in m.text_member(body, "key").split("\n") if key.strip()]
        if not keys:
            raise m.ManagementError("key: at least one key is required.")
        data = self._base.data
        rows = []
        for key in keys:
            id = await data.new_id("channels")
            row = ChannelRow(
                id=id,
                key=data.encrypt(key, f"channel:{id}"),
                key_digest=key_digest(key),
                created_time=data.now(),
                **{"status": ENABLED, **fields},
            )
            _check(row, key)
            rows.append(row)
        await data.channels.create_many({row_key(row.id): row for row in rows})
        return m.NO_DATA

    async def _edit(self, call: CompatCall, user: User) -> Any:
        body = await call.fields()
        row = await self._row(m.int_member(body, "id"))
        changes = _fields(body, before=row)
        data = self._base.data
        if key := m.text_member(body, "key").strip():
            changes["key"] = data.encrypt(key, f"channel:{row.id}")
            changes["key_digest"] = key_digest(key)
        wanted = msgspec.structs.replace(row, **changes)
        _check(wanted, data.decrypt(wanted.key, f"channel:{row.id}"))
        after = await data.channels.edit(
            row_key(row.id), lambda old: msgspec.structs.replace(old, **changes)
        )
        return (await self._shown([after]))[0]

    async def _delete(self, call: CompatCall, user: User) -> Any:
        id = m.number(call.names["id"])
        await self._base.data.store.drop("oneapi.channels", row_key(max(0, id)))
        return m.NO_DATA

    async def _delete_disabled(self, call: CompatCall, user: User) -> Any:
        rows = [row async for row in all_rows(self._base.data.channels) if row.status != ENABLED]
        for row in rows:
            await self._base.data.store.drop("oneapi.channels", row_key(row.id))
        return len(rows)

    # balances

    async def _update_balance(self, call: CompatCall, user: User) -> Any:
        row = await self._row(m.number(call.names["id"]))
        try:
            balance = await self._read_balance(row)
        except BalanceError as error:
            raise m.ManagementError(str(error)) from error
        await call.json({"success": True, "message": "", "balance": balance})

    async def _update_balances(self, call: CompatCall, user: User) -> Any:
        """Read the balances of all enabled channels; disable those that have no credit left."""
        rows = [row async for row in all_rows(self._base.data.channels)]
        for row in rows:
            if row.status != ENABLED or row.type not in READABLE_TYPES:
                continue
            try:
                balance = await self._read_balance(row)
            except BalanceError:
                continue
            if balance <= 0:
                await self._set_status(row, THIRD)
        return m.NO_DATA

    async def _read_balance(self, row: ChannelRow) -> float:
        """Read the balance of a channel and store it. Raises BalanceError."""
        now = self._base.data.now()
        try:
            provider = self._base.channels.make(row, self._base.channels.key(row))
        except AIProxyError as error:
            raise BalanceError(str(error)) from error
        balance = await read_balance(row.type, provider, self._base.transport, now)
        await self._base.data.channels.edit(
            row_key(row.id),
            lambda old: msgspec.structs.replace(old, balance=balance, balance_updated_time=now),
        )
        return balance

    # tests

    async def _test(self, call: CompatCall, user: User) -> Any:
        row = await self._row(m.number(call.names["id"]))
        problem, seconds, model = await self._run_test(row, call.query.get("model", ""))
        await call.json(
            {"success": not problem, "message": problem, "time": seconds, "modelName": model}
        )

    async def _test_all(self, call: CompatCall, user: User) -> Any:
        if self._testing is not None and not self._testing.done():
            raise m.ManagementError("A test of all channels is running already.")
        self._testing = start(self._test_each(), what="test of all channels")
        return m.NO_DATA

    async def _test_each(self) -> None:
        """Test all channels one after the other; disable those that fail or are slow."""
        options = self._base.options
        threshold = options.number("ChannelDisableThreshold")
        async for row in all_rows(self._base.data.channels):
            problem, seconds, _ = await self._run_test(row, "")
            slow = 0 < threshold < seconds
            disable = options.on("AutomaticDisableChannelEnabled") and (problem or slow)
            enable = options.on("AutomaticEnableChannelEnabled") and not problem
            if row.status == ENABLED and disable:
                await self._set_status(row, THIRD)
            elif row.status == THIRD and enable:
                await self._set_status(row, ENABLED)

    async def _set_status(self, row: ChannelRow, status: int) -> None:
        await self._base.data.channels.edit(
            row_key(row.id), lambda old: msgspec.structs.replace(old, status=status)
        )

    async def _run_test(self, row: ChannelRow, model: str) -> tuple[str, float, str]:
        """Test a channel; returns what is wrong, the seconds, and the model."""
        served = models_of(row)
        wanted = model if model in served else ""
        wanted = wanted or (_TEST_MODEL if _TEST_MODEL in served or not served else served[0])
        began = time.perf_counter()
        try:
            key = self._base.channels.key(row)
            provider = self._base.channels.make(row, key)
            sent = mapping_of(row).get(wanted, wanted)
        except ConfigurationError as error:
            return str(error), 0.0, wanted
        pool = provider.keys
        found = await check_key(
            provider,
            next(iter(pool.keys.values())) if pool is not None else None,
            self._base.transport,
            model=sent,
        )
        seconds = round(time.perf_counter() - began, 3)
        if found.ok:
            now, latency = self._base.data.now(), int(found.latency_ms)
            await self._base.data.channels.edit(
                row_key(row.id),
                lambda old: msgspec.structs.replace(old, test_time=now, response_time=latency),
            )
        return found.error, seconds, wanted

    async def _row(self, id: int) -> ChannelRow:
        return await self._base.data.channels.get(row_key(max(0, id)))

    async def _shown(self, rows: list[ChannelRow]) -> list[dict[str, Any]]:
        used = await self._base.balances.of_channels([row.id for row in rows])
        shown = []
        for row in rows:
            fields = msgspec.structs.asdict(row)
            del fields["key_digest"]
            shown.append({**fields, "key": "", "used_quota": used[row.id]})
        return shown


def _fields(body: Mapping[str, Any], before: ChannelRow | None = None) -> dict[str, Any]:
    """Return the members of a channel that are to be written. Raises ManagementError."""
    found: dict[str, Any] = {}
    for name in _TEXTS:
        if text := m.text_member(body, name):
            found[name] = text
    for name in ("type", "status"):
        if value := m.int_member(body, name):
            found[name] = value
    for name in _OPTIONAL:
        if body.get(name) is not None:
            reader: Any = m.int_member if name in ("weight", "priority") else m.text_member
            found[name] = reader(body, name)
    type = found.get("type", before.type if before is not None else 0)
    if problem := type_error(type):
        raise m.ManagementError(f"type: {problem}")
    if found.get("status", ENABLED) not in (ENABLED, DISABLED, THIRD):
        raise m.ManagementError(
            "status: must be 1 (enabled), 2 (disabled) or 3 (disabled by a test)."
        )
    if found.get("weight", 0) < 0:
        raise m.ManagementError("weight: must not be negative.")
    return found


def _check(row: ChannelRow, key: str) -> None:
    """Raise ConfigurationError if a channel cannot be used."""
    mapping_of(row)
    make_provider(row, key)
