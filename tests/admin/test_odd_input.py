"""Any input gets an error about the input, never an internal error."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.keys.encryption import NoEncryption
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import MemoryStore
from tests.admin.conftest import ROOT, Client

pytestmark = pytest.mark.anyio

ROUTES = [
    (method, path)
    for path, methods in {
        "/tokens": "GET POST", "/tokens/{id}": "GET PATCH DELETE", "/tokens/{id}/rotate": "POST",
        "/groups": "GET POST", "/groups/{id}": "GET PATCH DELETE",
        "/accounts": "GET POST", "/accounts/{id}": "GET PATCH DELETE",
        "/vouchers": "GET POST", "/vouchers/{id}": "GET PATCH", "/vouchers/redeem": "POST",
        "/vouchers/export": "GET", "/usage": "GET", "/usage/live": "POST",
        "/usage/total": "GET", "/usage/sums": "GET",
        "/providers": "GET", "/providers/openai": "GET", "/providers/openai/keys": "GET POST",
        "/providers/openai/import": "POST", "/providers/openai/keys/{id}": "GET PATCH DELETE",
        "/providers/openai/keys/{id}/enable": "POST", "/providers/{id}/keys": "GET POST",
        "/providers/openai/keys/{id}/disable": "POST", "/me": "GET",
        "/dashboard/billing/usage": "GET",
    }.items()
    for method in methods.split()
]  # fmt: skip

FIELDS = [
    *("name", "id", "secret", "rpm", "tpm", "budgets", "expires", "models", "networks", "group"),
    *(
        "account",
        "scopes",
        "enabled",
        "weight",
        "proxy",
        "base_url",
        "attributes",
        "grace",
        "count",
    ),
    *(
        "usd",
        "units",
        "per",
        "code",
        "target",
        "ratio",
        "keys",
        "providers",
        "priority",
        "may_choose_key",
    ),
]
WORDS = [
    "",
    "a",
    "root",
    "day",
    "10.0.0.0/8",
    "http://x",
    "token/a",
    "é\u202e",
    "\x00\n",
    "../..",
    "a/b",
]
NUMBERS = [0, 1, -1, 2**31, 2**53, 2**64, 10**30, 1e-9, 1.5, 1e300, 4_000_000_000]

leaves = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=8,
)
bodies = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=6).map(json.dumps),
    values.map(json.dumps),
    st.sampled_from(['{"name":"\\ud800"}', "[" * 5000, '{"rpm":NaN}', '"', "{}", "[]", "\ufeff{}"]),
)
queries = st.sampled_from(
    ["", "?after=%ff", "?limit=3&after=zz", "?limit=-1", "?limit=1e3", "?%00=1", "?a=%", "?&&&=",
     "?by=key&since=2026-02-30", "?name=%00", "?since=1e400", "?replace=maybe", "?since=nan"]
)  # fmt: skip


@given(
    route=st.sampled_from(ROUTES),
    id=st.sampled_from(["a", "%2F", "..", "%00", "%ff", "x" * 3000, "é"]),
    query=queries,
    body=bodies,
)
@settings(max_examples=400, deadline=None)
def test_no_request_breaks_the_admin_api(
    route: tuple[str, str], id: str, query: str, body: str
) -> None:
    method, path = route

    async def ask() -> None:
        store = MemoryStore()
        pool = KeyPool([Key("sk", id="a")], name="openai", store=store, sealer=NoEncryption())
        async with pool:
            client = Client(AdminApp(store, token=ROOT, providers=[OPENAI.using(pool)]))
            await client("POST", "/groups", {"name": "a"})
            await client("POST", "/accounts", {"id": "a", "budgets": [{"usd": 1}]})
            sent = body.encode() if method in ("POST", "PATCH") else b""
            answer = await client(method, path.replace("{id}", id) + query, sent)
        assert answer.status < 500, answer.body
        if answer.status >= 400:
            assert answer.json["error"]["message"]
        if answer.status in (200, 201) and method != "GET":
            listed = await client("GET", "/" + path.split("/")[1])
            assert listed.status == 200  # what was written can be read

    asyncio.run(ask())


async def test_concurrent_changes_are_written_completely(client: Client) -> None:
    made = (await client("POST", "/tokens", {"name": "t"})).json["token"]
    path = f"/tokens/{made['id']}"
    fields: list[dict[str, Any]] = [
        {"rpm": 7}, {"tpm": 8}, {"models": ["m"]}, {"may_choose_key": True}, {"name": "new"},
        {"concurrency": 9}, {"budgets": [{"usd": 3}]}, {"networks": ["10.0.0.0/8"]},
    ]  # fmt: skip
    random.shuffle(fields)
    answers = await asyncio.gather(*(client("PATCH", path, one) for one in fields))
    assert {answer.status for answer in answers} == {200}
    found = (await client("GET", path)).json
    limits = found["limits"]
    assert (found["name"], found["models"], found["may_choose_key"]) == ("new", ["m"], True)
    assert [limits[name]["limit"] for name in ("rpm", "tpm", "concurrency")] == [7, 8, 9]
    assert (limits["budgets"][0]["limit"], found["networks"]) == (3.0, ["10.0.0.0/8"])


async def test_of_many_concurrent_creations_of_the_same_row_one_succeeds(client: Client) -> None:
    new = {"name": "gold"}
    answers = await asyncio.gather(*(client("POST", "/groups", new) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 9
