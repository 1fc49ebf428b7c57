"""Get started: the settings of SDKs and coding agents, and a wait for the first call."""

from __future__ import annotations

import json
import shlex
import time
from math import isfinite
from typing import Any

from asgi_aiproxy.connect import CLIENTS, GatewayAccess, Setup, merge_config
from asgi_aiproxy.console.pages import PageAnswer, PageRequest, PageRoute

_HOUR = 3600.0


def start_pages() -> list[PageRoute]:
    """Return the page, and the part of it that is refreshed."""
    return [
        PageRoute("GET", "/start", "token", _show),
        PageRoute("GET", "/start/calls", "token", _calls),
    ]


async def _show(request: PageRequest) -> PageAnswer:
    chosen = CLIENTS.get(request.query.get("client", "")) or next(iter(CLIENTS.values()))
    url = request.tools.public_gateway_url(request.scope, request.mount)
    model = request.query.get("model", "").strip() or chosen.model
    setup = chosen.setup(GatewayAccess(url=url, model=model))
    return request.page(
        "start.html",
        clients=CLIENTS.values(),
        chosen=chosen,
        gateway=url,
        model=model,
        parts=_parts(setup),
        notes=setup.notes,
        curl=_curl(url, model),
        since=int(time.time()),  # rounded down: calls from now on are later
        **await _found(request, time.time()),
    )


async def _calls(request: PageRequest) -> PageAnswer:
    since = _since(request.query.get("since", ""))
    return request.page("first_call.html", since=int(since), **await _found(request, since))


def _since(text: str) -> float:
    """Return a Unix time from a query; now if it is not one."""
    try:
        since = float(text)
    except ValueError:
        return time.time()
    return since if isfinite(since) else time.time()


async def _found(request: PageRequest, since: float) -> dict[str, Any]:
    """Return the caller's latest exchange since a time, at most an hour ago."""
    since = max(since, time.time() - _HOUR)
    query = {"since": str(since), "limit": "1", "scan": "1000"}
    records = (await request.api("GET /me/usage", query=query)).data
    return {"call": records[0] if records else None}


def _parts(setup: Setup) -> list[tuple[str, str]]:
    """Return the snippets of a setup: where each goes, and its text."""
    parts = []
    if setup.environment:
        lines = [f"export {name}={_quoted(value)}" for name, value in setup.environment.items()]
        parts.append(("shell", "\n".join(lines)))
    if setup.file is not None:
        parts.append((setup.file.path, merge_config("", setup.file).strip()))
    if setup.example:
        parts.append(("example", setup.example))
    return parts


def _quoted(value: str) -> str:
    return f'"{value}"' if value.startswith("$") else shlex.quote(value)


def _curl(url: str, model: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
    return (
        f"curl {shlex.quote(url + '/v1/chat/completions')} \\\n"
        '  -H "Authorization: Bearer $AI_GATEWAY_TOKEN" \\\n'
        f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    )
