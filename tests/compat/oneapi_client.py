"""A One API in memory over scripted vendors, and its users as clients."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import MemoryStore
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.compat import OneAPIRoutes
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors

ROOT = "the-password-of-root"
CHAT = "/v1/chat/completions"
HI = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


class OneAPI:
    """The app, its store and the vendors behind it; root calls by its access token."""

    def __init__(self, vendors: Vendors | None = None, store: Any = None, **options: Any) -> None:
        self.vendors = vendors if vendors is not None else Vendors()
        self.store = store if store is not None else MemoryStore()
        self.app = OneAPIRoutes(
            self.store,
            root_password=ROOT,
            passwords=Passwords(time_cost=1, memory_cost=1024),
            transport=self.vendors.transport,
            **options,
        )

    async def answer(
        self, method: str, path: str, body: Any = b"", token: str = ROOT, **headers: str
    ) -> asgi.Answer:
        sent = {"authorization": token, **headers} if token else dict(headers)
        return await asgi.request(self.app, method, path, body, headers=sent)

    async def call(self, method: str, path: str, body: Any = b"", token: str = ROOT) -> Any:
        """The data of a management call that must succeed."""
        answer = await self.answer(method, path, body, token)
        assert (answer.status, answer.json["success"]) == (200, True), answer.body
        assert answer.json["message"] == ""
        return answer.json.get("data")

    async def fails(self, method: str, path: str, body: Any = b"", token: str = ROOT) -> str:
        """The message of a management call that must fail."""
        answer = await self.answer(method, path, body, token)
        assert (answer.status, answer.json["success"]) == (200, False), answer.body
        assert answer.json["message"]
        return str(answer.json["message"])

    async def channel(self, **fields: Any) -> int:
        given = {"type": 1, "key": "sk-vendor", "name": "c", "models": "gpt-4", "group": "default"}
        await self.call("POST", "/api/channel/", {**given, **fields})
        return int((await self.call("GET", "/api/channel/"))[0]["id"])

    async def user(self, name: str = "alice", quota: int = 1_000_000) -> tuple[int, str]:
        """A user's number and system access token."""
        body = {"username": name, "password": "password-1"}
        await self.call("POST", "/api/user/", body)
        found = (await self.call("GET", f"/api/user/search?keyword={name}"))[0]
        if quota:
            await self.call("PUT", "/api/user/", {"id": found["id"], "quota": quota})
        cookie = await self.login(name, "password-1")
        answer = await self.answer("GET", "/api/user/token", token="", cookie=cookie)
        return found["id"], answer.json["data"]

    async def login(self, name: str, password: str) -> str:
        body = {"username": name, "password": password}
        answer = await self.answer("POST", "/api/user/login", body, token="")
        assert answer.json["success"], answer.body
        return str(answer.header("set-cookie")).partition(";")[0]

    async def token(self, access: str = ROOT, **fields: Any) -> tuple[int, str]:
        """A token's number and key."""
        given = {"name": "t", "unlimited_quota": True, "expired_time": -1}
        found = await self.call("POST", "/api/token/", {**given, **fields}, access)
        listed = await self.call("GET", "/api/token/", token=access)
        return int(found["id"]), "sk-" + next(t["key"] for t in listed if t["id"] == found["id"])

    async def chat(self, key: str, **fields: Any) -> asgi.Answer:
        return await self.answer("POST", CHAT, {**HI, **fields}, f"Bearer {key}")
