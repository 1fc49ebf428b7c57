"""An existing Starlette service with an AI gateway mounted under /ai.

    uvicorn examples.starlette_app.app:app

Clients of the OpenAI API take http://127.0.0.1:8000/ai/v1 as their base URL.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_aiproxy import Authenticate, OpenAIShim, ProviderRouter, lifespan, log_usage
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, Provider


def vendor(row: Provider, variable: str, mock_url: str | None) -> Provider:
    """A vendor with the key from the environment, or else the mock in its place."""
    key = os.environ.get(variable)
    if key or mock_url is None:
        return row.using(key or "no-key-set")
    path = "/v1" if row is OPENAI else ""
    return row.using("mock-key", base_url=mock_url + path)


def create_app(mock_url: str | None = None) -> Starlette:
    """The whole service: its own routes, and the gateway."""
    openai = vendor(OPENAI, "OPENAI_API_KEY", mock_url)
    anthropic = vendor(ANTHROPIC, "ANTHROPIC_API_KEY", mock_url)
    gemini = vendor(GEMINI, "GEMINI_API_KEY", mock_url)
    router = ProviderRouter(
        {
            "gpt-*": openai,
            "claude-*": anthropic,
            "gemini-*": gemini,
            # The second answers when the first can not.
            "smart": [(anthropic, "claude-sonnet-4-5"), (openai, "gpt-4o")],
        }
    )
    shim = OpenAIShim(router, record=log_usage)
    ai = Authenticate(shim, verify=static_tokens({"demo-token": "demo"}))

    async def home(request: Request) -> JSONResponse:
        return JSONResponse({"service": "yours", "ai": "/ai/v1"})

    return Starlette(routes=[Route("/", home), Mount("/ai", ai)], lifespan=lifespan(ai))


app = create_app()
