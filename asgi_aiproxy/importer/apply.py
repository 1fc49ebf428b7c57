"""Write a plan: settings into `aiproxy.toml`, keys and tokens into the store.

Theory of operation. Nothing is written before the file was read completely, every row checked, and
the resulting configuration validated. Then the store is written, and the configuration last, in one
step (a new file that replaces the old one), so that an import that breaks off can simply be
repeated. Settings, keys and rows that exist already are left as they are: a second run changes
nothing. A new configuration gets a store file and random secrets next to it, readable only by their
owner.
"""

from __future__ import annotations

import copy
import os
import secrets
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from asgi_aiproxy.accounts import RowExistsError, Tokens
from asgi_aiproxy.compat.oneapi.rows import OneAPIData
from asgi_aiproxy.config.factory import make_store
from asgi_aiproxy.config.providers import make_providers, make_sealer
from asgi_aiproxy.config.settings import Settings, validate
from asgi_aiproxy.connect.clients import ConfigFile
from asgi_aiproxy.connect.config_files import merge_config
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.importer.oneapi_rows import OneAPIRows
from asgi_aiproxy.importer.plan import Plan, PlannedKey
from asgi_aiproxy.keys import Key, KeyPool, Sealer
from asgi_aiproxy.stores import Store

_STATE, _SEALING, _ADMIN = "aiproxy.state", "aiproxy.sealing-key", "aiproxy.admin-token"
_OPEN_TO_ALL = (
    "anonymous = true: as before, anyone who reaches the server may use the keys; remove it to "
    "require tokens"
)
# Apps that knew no callers, and settings that decide about callers.
_OPEN = frozenset({"aiproxy", "chatgpt_adapter"})
_CALLERS = frozenset({"anonymous", "tokens", "jwt"})
_KEPT = "is there already and is left as it is"


class Applied(msgspec.Struct, frozen=True):
    """What an import has changed: the number of rows, keys and tokens written, and whether the
    configuration was.
    """

    written: int
    configuration: bool


async def apply_plan(plan: Plan, path: Path, *, dry_run: bool, strict: bool) -> Applied:
    """Write a plan.

    Arguments:

    - `plan`: what was read; its report is completed.
    - `path`: the configuration to create or extend.
    - `dry_run`: write nothing.
    - `strict`: write nothing if anything is invalid.

    Raises ConfigurationError if the configuration would be invalid, and StoreUnavailableError.
    """
    rows = OneAPIRows(plan)
    rows.check()
    text = _text_of(path)
    needs_store = bool(plan.keys or plan.tokens or plan.tables)
    members = _new_settings(plan, text, path, needs_store)
    changed = merge_config(text, ConfigFile(path=str(path), format="toml", members=members))
    if dry_run or (strict and plan.invalid):
        for key in plan.keys:
            plan.take_secret(key)
        for token in plan.tokens:
            plan.take_secret(token)
        if needs_store:
            plan.leave("store", "keys, tokens and rows were not written")
        return Applied(0, False)
    created = _create_secrets(path, members)
    try:
        written = await _write_store(plan, rows, changed) if needs_store else 0
        _validated(changed)
    except BaseException:
        for file in created:
            file.unlink(missing_ok=True)
        raise
    if changed != text:
        _replace(path, changed)
    return Applied(written, changed != text)


def _text_of(path: Path) -> str:
    return path.read_text("utf-8-sig") if path.exists() else ""


# ── settings ─────────────────────────────────────────────────────────────────


def _new_settings(plan: Plan, text: str, path: Path, needs_store: bool) -> dict[str, Any]:
    """Return the settings that the configuration lacks."""
    try:
        old = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}.") from error
    wanted = copy.deepcopy(plan.settings)
    for name in {key.provider for key in plan.keys}:
        wanted.setdefault("providers", {}).setdefault(name, {}).setdefault("keys", [])
    folder = path.absolute().parent
    if _OPEN & set(wanted.get("compat", {})) and not _CALLERS & set(old):
        if text:
            plan.leave(
                "callers", "need a token now; anonymous = true accepts every caller, as before"
            )
        else:
            wanted["anonymous"] = True
            plan.take("callers", _OPEN_TO_ALL)
    if needs_store:
        if "store_file" not in old and "redis_url" not in old:
            wanted["store_file"] = str(folder / _STATE)
        wanted.setdefault("sealing_keys", [f"file:{folder / _SEALING}"])
    if "oneapi" in wanted.get("compat", {}) and "admin_token" not in old:
        wanted["compat"]["root_password"] = f"file:{folder / _ADMIN}"
    if "chatgpt_to_api" in wanted.get("compat", {}) and "admin_token" not in old:
        wanted["compat"]["admin_password"] = f"file:{folder / _ADMIN}"
    return _missing(old, wanted, plan)


def _missing(
    old: Mapping[str, Any], wanted: Mapping[str, Any], plan: Plan, where: str = ""
) -> dict[str, Any]:
    """Return the members of `wanted` that `old` does not have."""
    found: dict[str, Any] = {}
    for name, value in wanted.items():
        place = f"{where}.{name}" if where else name
        if isinstance(value, Mapping):
            below = old.get(name, {})
            inner = _missing(below, value, plan, place) if isinstance(below, Mapping) else {}
            if inner:
                found[name] = inner
        elif name not in old:
            found[name] = value
        elif old[name] != value and value != []:
            plan.leave(place, "the configuration has another value, which is kept")
    return found


def _create_secrets(path: Path, members: Mapping[str, Any]) -> list[Path]:
    """Create the files with random secrets that the new settings refer to."""
    folder, created = path.absolute().parent, []
    compat = members.get("compat", {})
    wanted = {_SEALING: Sealer.generate() if "sealing_keys" in members else ""}
    if {"root_password", "admin_password"} & set(compat):
        wanted[_ADMIN] = secrets.token_urlsafe(32)
    for name, secret in wanted.items():
        file = folder / name
        if secret and not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(secret + "\n")
            created.append(file)
    return created


def _validated(text: str) -> Settings:
    """Return the settings of a configuration. Variables of the environment may be missing yet.

    Raises ConfigurationError.
    """
    values = tomllib.loads(text)
    for provider in values.get("providers", {}).values():
        keys = provider.get("keys")
        if isinstance(keys, list):
            provider["keys"] = [
                "not-set-yet" if isinstance(key, str) and key.startswith("env:") else key
                for key in keys
            ]
    return validate(values)


def _replace(path: Path, text: str) -> None:
    """Write a file in one step."""
    folder = path.absolute().parent
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ── store ────────────────────────────────────────────────────────────────────


async def _write_store(plan: Plan, rows: OneAPIRows, text: str) -> int:
    settings = _validated(text)
    store = make_store(settings)
    if store is None:
        raise ConfigurationError("store_file: a store is required; or set redis_url.")
    sealer = make_sealer(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        written = await _write_keys(plan, settings, store, stack)
        written += await _write_tokens(plan, store)
        if plan.tables:
            await rows.write(OneAPIData(store, sealer))
            written += rows.written
    return written


async def _write_keys(plan: Plan, settings: Settings, store: Store, stack: AsyncExitStack) -> int:
    if not plan.keys:
        return 0
    providers = make_providers(settings, store)
    written = 0
    for name in dict.fromkeys(key.provider for key in plan.keys):
        pool = providers[name].keys
        if pool is None:
            raise ConfigurationError(f"providers.{name}: it has no pool for keys.")
        await stack.enter_async_context(pool)
        written += await _write_pool(plan, name, pool)
    return written


async def _write_pool(plan: Plan, name: str, pool: KeyPool) -> int:
    known = {key.secret: key.id for key in pool.keys.values()}
    ids = dict(pool.keys)
    fresh: dict[str, Key] = {}
    taken: list[PlannedKey] = []
    for planned in plan.keys:
        if planned.provider != name:
            continue
        key = Key(planned.secret, **planned.fields)
        same = ids.get(key.id) or fresh.get(key.id)
        if same is not None and same.secret == key.secret:
            plan.leave(planned.place, _KEPT)
        elif same is not None:
            plan.reject(planned.place, f"another key of {name} has the id {key.id!r}")
        elif "id" not in planned.fields and key.secret in known:
            plan.leave(planned.place, _KEPT)
        else:
            fresh[key.id] = key
            taken.append(planned)
    if fresh:
        await pool.add(*fresh.values())
    for planned in taken:
        plan.take_secret(planned)
    return len(fresh)


async def _write_tokens(plan: Plan, store: Store) -> int:
    tokens, written = Tokens(store), 0
    for planned in plan.tokens:
        try:
            await tokens.issue(secret=planned.secret, name=planned.name)
        except RowExistsError:
            plan.leave(planned.place, _KEPT)
        except ConfigurationError as error:
            plan.reject(planned.place, str(error).rstrip("."))
        else:
            written += 1
            plan.take_secret(planned)
    return written
