"""`Health`: liveness and readiness."""

from __future__ import annotations

import pytest

from asgi_aiproxy import Authenticate, Health, OpenAIShim
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.stores.base import StoreUnavailableError
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio


def guarded() -> Authenticate:
    verify = static_tokens({"token": "ada"})
    return Authenticate(OpenAIShim(OPENAI.using("sk-1")), verify=verify)


class Away(MemoryStore):
    requested = 0
    away = True

    async def version(self, name: str) -> int:
        self.requested += 1
        if self.away:
            raise StoreUnavailableError("away")
        return 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_and_readiness_need_no_token(method: str) -> None:
    app = Health(guarded())
    for path in ("/health", "/ready"):
        answer = await asgi.request(app, method, path)
        assert answer.status == 200
        assert bool(answer.body) == (method == "GET")
    assert (await asgi.request(app, "GET", "/v1/models")).status == 401
    assert (await asgi.request(app, "POST", "/health")).status == 401
    assert (await asgi.request(app, "GET", "/v1/health")).status == 401


async def test_a_draining_worker_is_not_ready_but_healthy() -> None:
    app = Health(guarded())
    async with app:
        assert (await asgi.request(app, "GET", "/ready")).status == 200
    answer = await asgi.request(app, "GET", "/ready")
    assert (answer.status, answer.json["status"]) == (503, "draining")
    assert (await asgi.request(app, "GET", "/health")).status == 200


async def test_readiness_reports_the_store_and_checks_it_once_a_second() -> None:
    now = [0.0]
    store = Away()
    app = Health(guarded(), store=store, clock=lambda: now[0])
    for _ in range(50):
        answer = await asgi.request(app, "GET", "/ready")
        assert (answer.status, answer.json) == (200, {"status": "ready", "store": "away"})
    assert store.requested == 1
    store.away, now[0] = False, 1.5
    assert (await asgi.request(app, "GET", "/ready")).json["store"] == "ok"


async def test_below_a_mount_the_paths_are_those_below_it() -> None:
    app = Health(guarded(), health="/live")
    assert (await asgi.request(app, "GET", "/ai/live", root_path="/ai")).status == 200
    assert (await asgi.request(app, "GET", "/ai/health", root_path="/ai")).status == 401
