"""Check a Redis server at the start: the commands it allows, and settings that endanger budgets.

EVAL and commands that read and write keys are required: without them a ConfigurationError is raised
at the start. CLIENT SETNAME, SCRIPT LOAD, EVALSHA, PING, CONFIG GET and INFO are optional: proxies
such as Twemproxy, Codis and Envoy, and managed services, refuse some of them.

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


async def survey(client: RedisClient, shown: str, tag: str, key: str) -> list[str]:
    """Warnings about the server `shown`; `key` is any key with the hash tag `tag`.

    Raises ConfigurationError if it refuses a required command, StoreUnavailableError if it does not
    answer.
    """
    reply = await client.try_run(tag, _PROBE, [key])
    if isinstance(reply, ErrorReply) and refuses(reply, "EVAL"):
        raise ConfigurationError(
            f"{shown} refuses EVAL ({reply.code} {reply.text}). Limits and budgets need "
            f"scripts: allow the commands EVAL and EVALSHA, or use a server that supports them."
        )
    found = await _settings(client, tag)
    return [f"{shown}: {warning} {_READ_MORE}" for warning in warnings(found)]


def warnings(settings: Mapping[str, str]) -> list[str]:
    """Warnings for settings of a server (names of CONFIG GET; unknown ones are missing)."""
    found = []
    if settings.get("appendonly") == "no" and settings.get("save") == "":
        found.append(
            "this server keeps nothing on disk: after a restart all budgets begin at zero, and "
            "tokens and keys of the store are lost. Set appendonly yes."
        )
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and settings.get("maxmemory", "0") != "0":
        found.append(
            f"this server evicts keys when its memory is full (maxmemory-policy {policy}): spent "
            f"budgets, tokens and limits may be lost. Set maxmemory-policy noeviction."
        )
    return found


async def _settings(client: RedisClient, tag: str) -> dict[str, str]:
    """The relevant settings, as far as the server reports them."""
    commands = (
        ("INFO", "memory"),
        ("INFO", "persistence"),
        ("CONFIG", "GET", "maxmemory*"),
        ("CONFIG", "GET", "appendonly"),
        ("CONFIG", "GET", "save"),
    )
    replies = await asyncio.gather(*(client.try_call(tag, *command) for command in commands))
    found: dict[str, str] = {}
    for command, reply in zip(commands, replies, strict=True):
        if not isinstance(reply, ErrorReply):
            found |= _info(reply) if command[0] == "INFO" else _config(reply)
    return found


def _info(reply: Any) -> dict[str, str]:
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    info = {name: value for name, colon, value in lines if colon}
    found = {
        "maxmemory": info.get("maxmemory"),
        "maxmemory-policy": info.get("maxmemory_policy"),
        "appendonly": {"0": "no", "1": "yes"}.get(info.get("aof_enabled", "")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _config(reply: Any) -> dict[str, str]:
    """Names and values of a CONFIG GET reply: a list in RESP2, a map in RESP3."""
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
