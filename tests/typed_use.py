"""The public API as used with strict type checking; `scripts/test` has mypy check it."""

from __future__ import annotations

import httpx
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.routing import Mount as StarletteMount
from starlette.types import Scope

from asgi_aiproxy import (
    Authenticate,
    Dispatcher,
    InProcess,
    Key,
    KeyPool,
    OpenAIShim,
    Principal,
    ProviderRouter,
    Target,
    UsageRecord,
    lifespan,
    log_usage,
    tee,
)
from asgi_aiproxy.messages import BlockDelta
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.upstream import HttpxTransport, Timeouts


async def record(usage: UsageRecord) -> None:
    print(usage.usage.input if usage.usage is not None else 0)


def who(scope: Scope) -> Principal | None:
    return Principal(scope["session"]["user"], models=("claude-*",))


pool = KeyPool([Key("sk-1", id="first", weight=2, rpm=60), "sk-2"], cooldown=60)
openai = OPENAI.using("sk")
router = ProviderRouter(
    {
        "claude-*": ANTHROPIC.using(pool),
        "fast": (openai, "gpt-4o-mini"),
        "two": [Target(GEMINI.using("x"), "gemini-2.5-flash", weight=3), openai],
    }
)
transport = HttpxTransport(httpx.MockTransport(lambda request: httpx.Response(200)))
ai = OpenAIShim(
    router, record=tee(record, log_usage), timeouts=Timeouts(first=20), transport=transport
)
protected = Authenticate(ai, verify=static_tokens({"token": "team-1"}), identify=who)

fastapi = FastAPI(lifespan=lifespan(ai))
fastapi.mount("/ai", ai)
starlette = Starlette(routes=[StarletteMount("/ai", protected)], lifespan=lifespan(ai, pool))
litestar = Litestar([asgi("/ai", is_mount=True, copy_scope=True)(ai)], lifespan=[lifespan(ai)])
outer = Dispatcher(starlette, {"/other": ai})


async def use() -> None:
    async with pool.lease(model="claude-haiku-4-5") as lease:
        print(lease.key.secret)
        lease.report(200)


async def typed_calls() -> list[list[float]]:
    calls = InProcess(protected, principal=Principal("job"))
    answer = await calls.chat(model="m", messages="Hi")
    text: str = answer.text
    async for event in calls.stream({"model": "m", "messages": text}):
        if isinstance(event, BlockDelta):
            text += event.text
    return (await ai.embed(model="m", input=[text])).vectors
