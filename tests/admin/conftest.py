"""An admin app over each kind of store, and a client of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.stores.redis import RedisStore
from tests.support import asgi_client as asgi

ROOT = "the-token-of-the-root-of-all"


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("redis_url")
    async with RedisStore(url, prefix=f"test-{uuid.uuid4().hex}", timeout=5.0) as made:
        yield made


class Client:
    """Sends requests to an admin app, with the root token or another one."""

    def __init__(self, app: Any, token: str | None = ROOT, root_path: str = "") -> None:
        self.app = app
        self.token = token
        self.root_path = root_path

    async def __call__(
        self, method: str, path: str, body: Any = b"", **headers: str
    ) -> asgi.Answer:
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        return await asgi.request(
            self.app, method, self.root_path + path, body, headers=headers, root_path=self.root_path
        )

    def by(self, token: str | None) -> Client:
        return Client(self.app, token, self.root_path)

    async def error(self, method: str, path: str, body: Any = b"") -> tuple[int, str | None, str]:
        """Return status, field and message of an error response."""
        answer = await self(method, path, body)
        error = answer.json["error"]
        return answer.status, error["param"], error["message"]


@pytest.fixture
def make() -> Callable[..., Client]:
    return lambda store, **options: Client(AdminApp(store, token=ROOT, **options))


@pytest.fixture
def client(store: Store, make: Callable[..., Client]) -> Client:
    return make(store)
