"""An existing Litestar service whose own users call AI models through it.

    uvicorn examples.litestar_app.app:app

The service knows its users by a session header; the gateway takes that knowledge over, so there are
no gateway tokens. Two Anthropic keys take turns, and OpenAI answers when Anthropic cannot.

Below /reports the same users reach an internal application that knows neither them nor rotation:
it gets one of its two keys with each request, WebSockets included.
"""

from __future__ import annotations

import os
from typing import Any

from litestar import Litestar, get
from litestar.handlers import asgi

from asgi_aiproxy import (
    Authenticate,
    InjectKey,
    Key,
    KeyPool,
    OpenAIShim,
    PassthroughProxy,
    Principal,
    ProviderRouter,
    lifespan,
)
from asgi_aiproxy.providers import ANTHROPIC, OPENAI, Provider

USERS = {"session-of-ada": Principal("ada"), "session-of-ben": Principal("ben", models=("fast",))}


def session_user(scope: Any) -> Principal | None:
    """Return the caller, by the authentication that the service already has."""
    session = dict(scope["headers"]).get(b"x-session", b"").decode()
    return USERS.get(session)


@get("/")
async def home() -> dict[str, str]:
    """The service's own route."""
    return {"service": "yours", "ai": "/ai/v1", "reports": "/reports"}


def create_app(
    anthropic: Provider | None = None,
    openai: Provider | None = None,
    transport: Any = None,
    reports: str = "http://127.0.0.1:9000",
) -> Litestar:
    """The whole service; providers and the internal application can be replaced by tests."""
    keys = KeyPool(
        [
            Key(os.environ.get("ANTHROPIC_API_KEY", "no-key-set"), id="main"),
            Key(os.environ.get("ANTHROPIC_SPARE_KEY", "no-spare-set"), id="spare"),
        ]
    )
    anthropic = anthropic if anthropic is not None else ANTHROPIC.using(keys)
    if openai is None:
        openai = OPENAI.using(os.environ.get("OPENAI_API_KEY", "no-key-set"))
    router = ProviderRouter(
        {
            "smart": [(anthropic, "claude-sonnet-4-5"), (openai, "gpt-4o")],
            "fast": (openai, "gpt-4o-mini"),
        }
    )
    ai = Authenticate(OpenAIShim(router, transport=transport), identify=session_user)
    badges = KeyPool([Key("report-key-1", id="first"), Key("report-key-2", id="second")])
    internal = Authenticate(
        InjectKey(PassthroughProxy(reports), pool=badges, header="x-report-key"),
        identify=session_user,
    )
    mounts = [
        asgi("/ai", is_mount=True, copy_scope=True)(ai),
        asgi("/reports", is_mount=True, copy_scope=True)(internal),
    ]
    return Litestar([home, *mounts], lifespan=[lifespan(ai, internal)])


app = create_app()
