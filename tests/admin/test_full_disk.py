"""On a full disk a change over the admin API is made completely or not at all."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.keys import Key, KeyPool, NoEncryption
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore, StoreUnavailableError
from asgi_aiproxy.stores.base import Grant, UsageLevel
from tests.admin.conftest import ROOT, Client

pytestmark = pytest.mark.anyio

PATHS = (
    "/tokens",
    "/groups",
    "/accounts",
    "/vouchers",
    "/providers/openai/keys",
)


async def world(client: Client) -> dict[str, Any]:
    """All state that the API shows."""
    return {path: (await client("GET", path)).json for path in PATHS}


async def made(store: MemoryStore) -> tuple[Client, list[tuple[str, str, Any]]]:
    """A client, and all possible changes."""
    pool = KeyPool([Key("sk-own", id="own")], name="openai", store=store, sealer=NoEncryption())
    client = Client(AdminApp(store, token=ROOT, providers=[OPENAI.using(pool)]))
    keys = "/providers/openai/keys"
    for path, body in [
        ("/groups", {"name": "g"}),
        ("/accounts", {"id": "a", "budgets": [{"usd": 5}]}),
        (keys, {"secret": "sk-1", "id": "k"}),
    ]:
        assert (await client("POST", path, body)).status == 201
    issued = await client("POST", "/tokens", {"name": "t", "budgets": [{"usd": 5}]})
    token = issued.json["token"]["id"]
    code = (await client("POST", "/vouchers", {"count": 1, "usd": 1})).json["codes"][0]
    voucher = (await client("GET", "/vouchers")).json["data"][0]["id"]
    return client, [
        ("POST", "/tokens", {"name": "new", "budgets": [{"usd": 5}]}),
        ("PATCH", f"/tokens/{token}", {"rpm": 9, "name": "x"}),
        ("POST", f"/tokens/{token}/rotate", {"grace": 60}),
        ("DELETE", f"/tokens/{token}", b""),
        ("POST", "/groups", {"name": "new"}),
        ("PATCH", "/groups/g", {"ratio": 2}),
        ("DELETE", "/groups/g", b""),
        ("POST", "/accounts", {"id": "new"}),
        ("PATCH", "/accounts/a", {"enabled": False}),
        ("DELETE", "/accounts/a", b""),
        ("POST", keys, [{"secret": "sk-2", "id": "two"}, {"secret": "sk-3"}]),
        ("POST", "/providers/openai/import", b"sk-4\nsk-5\n"),
        ("POST", "/providers/openai/import?replace=true", b"sk-4\nsk-5\n"),
        ("PATCH", f"{keys}/k", {"weight": 3}),
        ("POST", f"{keys}/k/disable", b""),
        ("POST", f"{keys}/own/disable", b""),
        ("DELETE", f"{keys}/k", b""),
        ("POST", "/vouchers", {"count": 300, "usd": 5}),
        ("POST", "/vouchers/redeem", {"code": code, "target": f"token/{token}"}),
        ("PATCH", f"/vouchers/{voucher}", {"enabled": False}),
    ]


async def test_a_change_that_cannot_be_written_is_a_503_and_has_not_been_made(
    tmp_path: Path,
) -> None:
    """The state file is a directory for a while, which cannot be replaced, as on a full disk."""
    file = tmp_path / "state"
    async with MemoryStore(file=file) as store:
        client, changes = await made(store)
        file.unlink()
        (file / "in the way").mkdir(parents=True)
        before = await world(client)
        for method, path, body in changes:
            answer = await client(method, path, body)
            assert answer.status == 503, (method, path, answer.body)
            assert answer.header("retry-after") == "1"
            async with asyncio.timeout(20):  # a pool may have read what was taken back
                while await world(client) != before:
                    await asyncio.sleep(0.01)
        (file / "in the way").rmdir()
        file.rmdir()
        for method, path, body in changes:
            if method != "DELETE" and "replace" not in path:
                answer = await client(method, path, body)
                assert answer.status in (200, 201), (method, path, answer.body)
        after = await world(client)
    async with MemoryStore(file=file) as store:
        pool = KeyPool([Key("sk-own", id="own")], name="openai", store=store, sealer=NoEncryption())
        async with pool:
            reopened = Client(AdminApp(store, token=ROOT, providers=[OPENAI.using(pool)]))
            assert await world(reopened) == after


class Unreadable(MemoryStore):
    """A store that cannot report usage once it is `shut`."""

    shut = False

    async def peek(self, grants: Collection[Grant]) -> list[UsageLevel]:  # type: ignore[override]
        if self.shut:
            raise StoreUnavailableError("gone")
        return await super().peek(list(grants))


async def test_a_new_secret_is_shown_although_the_store_fails_right_after() -> None:
    store = Unreadable()
    client = Client(AdminApp(store, token=ROOT))
    store.shut = True
    issued = await client("POST", "/tokens", {"name": "t", "rpm": 5, "budgets": [{"usd": 5}]})
    assert issued.status == 201
    id = issued.json["token"]["id"]
    assert issued.json["token"]["limits"]["budgets"][0]["left"] == 5.0
    rotated = await client("POST", f"/tokens/{id}/rotate", {})
    assert rotated.status == 200
    assert (await client("GET", f"/tokens/{id}")).status == 503
    store.shut = False
    assert (await client.by(rotated.json["secret"])("GET", "/me")).status == 200


async def test_on_a_full_disk_no_confirmed_change_is_lost(tmp_path: Path) -> None:
    """A real limit of the system, RLIMIT_FSIZE: the file cannot grow, and the process lives on."""
    code = f"""
import asyncio, resource, signal
from asgi_aiproxy.stores import MemoryStore, StoreUnavailableError
async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = MemoryStore(file={str(tmp_path / "state")!r})
    await store.put("t", "k", b"x" * 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
    try:
        await store.put("t", "big", b"x" * 10_000)
        print("written")
    except StoreUnavailableError as error:
        print(error, sorted(await store.rows("t")))
    await store.put("t", "small", b"x")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.put("t", "big", b"y" * 10_000)
    await store.aclose()
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "not written: File too large ['k']" in done.stdout
    assert "cannot be written: File too large; retrying" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "state.lock"]
    async with MemoryStore(file=tmp_path / "state") as store:
        assert sorted(await store.rows("t")) == ["big", "k", "small"]
