"""Odd requests to any path of the compat apps get an error of the client, never an exception."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import ProviderRouter
from asgi_aiproxy.compat import AIProxyRoutes, ChatGPTAdapterRoutes, ChatGPTToAPIRoutes
from asgi_aiproxy.compat.routing import CompatApp
from asgi_aiproxy.providers import ANTHROPIC, COZE, GEMINI, OPENAI
from tests.compat.oneapi_client import ROOT, OneAPI
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

pytestmark = pytest.mark.anyio

BODIES = [
    b"",
    b"null",
    b"[]",
    b"7",
    b"{",
    b"\xff\xfe",
    b"{}",
    b'{"a":' * 3000,
    b"[" * 200_000,
    b'{"model": 1, "messages": "x", "provider": {"a": 1}}',
    b'{"model": "m", "messages": [], "provider": "gemini", "gemini": 7}',
    b'{"model": "m", "messages": [1], "provider": "claude", "claude": {"type": 3}}',
    b'{"model": "coze-api", "messages": [], "provider": "coze", "coze": {"conversation": []}}',
    b'{"id": 1e400, "key": 7, "username": [], "quota": -1e30, "status": "x"}',
    b'{"id": 99999999999999999999, "name": {"a": 1}, "count": 1.5, "type": "1"}',
    b'{"username": "\\ud800", "password": "\\u0000", "key": "\\ud800", "action": 1}',
    b'{"key": "\\u0000", "value": [1], "models": 7, "group": {}, "subnet": 1, "type": 1}',
]
HEADERS = [
    {},
    {"authorization": "Bearer \xe9"},
    {"authorization": "Bearer"},
    {"authorization": "x" * 5000, "x-auth-id": "\x01", "x-bot-id": "?"},
    {"cookie": "session=a.b.c; sessionKey=x;y"},
    {"cookie": "session=1.1.x", "x-api-key": "a b"},
]
QUERIES = ["", "?p=-1&id=x&keyword=%00&type=9999999999999999999999", "?p=%F0%28&key=&keyword=%"]


def apps() -> dict[str, CompatApp]:
    vendors = Vendors()
    options: Any = {"transport": vendors.transport}
    return {
        "aiproxy": AIProxyRoutes(
            openai=OPENAI.using("sk-1"), gemini=GEMINI.using("g"), anthropic=ANTHROPIC.using("a"),
            coze=COZE.using("c"), chatgpt_web="http://c.example", claude_web="http://d.example",
            **options,
        ),
        "chatgpt_to_api": ChatGPTToAPIRoutes(
            OPENAI.using("sk-1"), admin_password="a" * 16, **options
        ),
        "chatgpt_adapter": ChatGPTAdapterRoutes(
            ProviderRouter({"*": OPENAI.using("sk-1")}), **options
        ),
        "oneapi": OneAPI(vendors).app,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["aiproxy", "chatgpt_to_api", "chatgpt_adapter", "oneapi"])
async def test_odd_requests_are_errors_of_the_client(name: str) -> None:
    app = apps()[name]
    authorized = {"oneapi": ROOT, "chatgpt_to_api": "a" * 16}.get(name)
    for route in app.routes:
        path = "/".join(
            "0" if part.startswith(":") else "x" if part == "*" else part
            for part in route.path.split("/")
        )
        methods = ["GET", "POST"] if route.methods == "*" else route.methods.split()
        for method in methods:
            given = [authorized] if authorized else [None]
            bodies = BODIES if method in ("POST", "PUT", "PATCH") else [b""]
            for body in bodies:
                for token in given:
                    headers = {"authorization": token} if token else {}
                    answer = await asgi.request(app, method, path, body, headers=headers)
                    assert answer.status < 500 or answer.status == 502, (method, path, body)


@pytest.mark.parametrize("name", ["aiproxy", "chatgpt_to_api", "chatgpt_adapter", "oneapi"])
async def test_odd_headers_and_queries_are_errors_of_the_client(name: str) -> None:
    app = apps()[name]
    for route in app.routes:
        path = route.path.replace("*", "%00").replace(":id", "%F0%28").replace(":model", "a%2Fb")
        for headers in HEADERS:
            for query in QUERIES:
                scope = asgi.scope_of("GET", path + query)
                scope["headers"] = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
                async with asgi.Exchange(app, scope) as exchange:
                    exchange.send_body(b"")
                    answer = await exchange.answer()
                    await exchange.ended()
                assert answer.status < 500 or answer.status == 502, (path, headers, query)
