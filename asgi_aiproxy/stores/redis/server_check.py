"""What a server lets us do, and what its settings mean for budgets: looked at once, at the start.

Needed are EVAL, and reads and writes of keys: without them nothing works, and that is said before
the first call. All else is optional (CLIENT SETNAME, SCRIPT LOAD, EVALSHA, PING, CONFIG GET, INFO):
proxies such as Twemproxy, Codis and Envoy, and managed services, refuse some of these.

https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
https://redis.io/docs/latest/develop/reference/eviction/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores.redis.client import RedisClient, refuses
from asgi_aiproxy.stores.redis.pipeline import ErrorReply
from asgi_aiproxy.stores.redis.scripts import Script

_PROBE = Script("probe", "redis.call('TIME') return redis.call('EXISTS', KEYS[1])")
_READ_MORE = "See 'What Redis must keep' in docs/workers.md."


async def survey(link: RedisClient, shown: str, tag: str, key: str) -> list[str]:
    """Warnings about the server `shown`; `key` is one that has `tag`.

    Raises ConfigurationError if it refuses what is needed, StoreUnavailableError if it is away.
    """
    reply = await link.try_run(tag, _PROBE, [key])
    if isinstance(reply, ErrorReply) and refuses(reply, "EVAL"):
        raise ConfigurationError(
            f"{shown} refuses EVAL ({reply.code} {reply.text}). Limits and budgets are counted by "
            f"scripts: allow the commands EVAL and EVALSHA, or connect to a server that has them."
        )
    found = await _settings(link, tag)
    return [f"{shown}: {warning} {_READ_MORE}" for warning in warnings(found)]


def warnings(settings: Mapping[str, str]) -> list[str]:
    """What to say of a server's settings (those of CONFIG GET, as far as they are known)."""
    found = []
    if settings.get("appendonly") == "no" and settings.get("save") == "":
        found.append(
            "this server keeps nothing on disk: after a restart all budgets begin anew, and tokens "
            "and keys of the store are gone. Set appendonly yes."
        )
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and settings.get("maxmemory", "0") != "0":
        found.append(
            f"this server evicts keys when its memory is full (maxmemory-policy {policy}): spent "
            f"budgets, tokens and limits may vanish. Set maxmemory-policy noeviction."
        )
    return found


async def _settings(link: RedisClient, tag: str) -> dict[str, str]:
    """The settings that matter, as far as the server tells them."""
    asked = (
        ("INFO", "memory"),
        ("INFO", "persistence"),
        ("CONFIG", "GET", "maxmemory*"),
        ("CONFIG", "GET", "appendonly"),
        ("CONFIG", "GET", "save"),
    )
    replies = await asyncio.gather(*(link.ask(tag, *command) for command in asked))
    found: dict[str, str] = {}
    for command, reply in zip(asked, replies, strict=True):
        if not isinstance(reply, ErrorReply):
            found |= _info(reply) if command[0] == "INFO" else _config(reply)
    return found


def _info(reply: Any) -> dict[str, str]:
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    told = {name: value for name, colon, value in lines if colon}
    found = {
        "maxmemory": told.get("maxmemory"),
        "maxmemory-policy": told.get("maxmemory_policy"),
        "appendonly": {"0": "no", "1": "yes"}.get(told.get("aof_enabled", "")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _config(reply: Any) -> dict[str, str]:
    """A reply of names and values: a list in RESP2, a map in RESP3."""
    if isinstance(reply, dict):
        pairs = list(reply.items())
    elif isinstance(reply, list):
        pairs = list(zip(reply[::2], reply[1::2], strict=False))
    else:
        return {}
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in pairs
        if isinstance(name, bytes) and isinstance(value, bytes)
    }
