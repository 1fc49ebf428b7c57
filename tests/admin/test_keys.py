"""Providers and their keys over the admin API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asgi_aiproxy.admin import AdminApp
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys import Key, KeyPool, Sealer
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.stores import MemoryStore, Store
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.admin.conftest import ROOT, Client

pytestmark = pytest.mark.anyio

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz-0123456789"
PROVIDER = "/providers/openai"
KEYS = f"{PROVIDER}/keys"


@pytest.fixture
async def pool(store: Store) -> AsyncIterator[KeyPool]:
    async with KeyPool(
        [Key("sk-of-the-code", id="code")], name="openai", store=store, sealer=Sealer("s" * 43)
    ) as made:
        yield made


@pytest.fixture
async def keeper(store: Store, pool: KeyPool) -> AsyncIterator[Client]:
    app = AdminApp(store, token=ROOT, providers=[OPENAI.using(pool), ANTHROPIC])
    async with app:
        yield Client(app)


async def ids(client: Client, path: str = KEYS) -> list[str]:
    return [key["id"] for key in (await client("GET", path)).json["data"]]


async def test_a_key_is_added_shown_without_its_secret_and_used(
    keeper: Client, pool: KeyPool, store: Store
) -> None:
    new = {"secret": SECRET, "id": "main", "weight": 3, "rpm": 50, "models": ["gpt-*"],
           "proxy": "http://user:password@proxy:3128"}  # fmt: skip
    answer = await keeper("POST", KEYS, new)
    assert answer.status == 201, answer.body
    listed = await keeper("GET", KEYS)
    single = await keeper("GET", KEYS + "/main")
    for reported in (answer, listed, single):
        assert SECRET not in reported.body.decode()
        assert b"abcdef" not in reported.body
        assert b"password" not in reported.body
    (key,) = answer.json
    assert key == single.json == listed.json["data"][1]
    assert (key["id"], key["source"], key["health"]) == ("main", "store", "ok")
    assert (key["weight"], key["rpm"], key["models"]) == (3, 50, ["gpt-*"])
    assert key["fingerprint"].startswith("key-")
    assert listed.json["data"][0]["source"] == "code"
    with (
        pool.acquire_nowait(key_id="main")
        if not pool.table
        else await pool.acquire(key_id="main") as lease
    ):
        assert lease.key.secret == SECRET
    assert SECRET.encode() not in b"".join((await store.rows("keys:openai")).values())


async def test_several_keys_are_added_all_or_none(keeper: Client) -> None:
    many = [{"secret": f"sk-{n}", "id": f"k{n}"} for n in range(3)]
    assert (await keeper("POST", KEYS, many)).status == 201
    assert await ids(keeper) == ["code", "k0", "k1", "k2"]
    more = [{"secret": "sk-4", "id": "k4"}, {"secret": "sk-5", "id": "k1"}]
    assert (await keeper.error("POST", KEYS, more))[:2] == (409, "[1].id")
    twice = [{"secret": "sk-6", "id": "k6"}, {"secret": "sk-7", "id": "k6"}]
    assert (await keeper.error("POST", KEYS, twice))[:2] == (409, "[1].id")
    assert await ids(keeper) == ["code", "k0", "k1", "k2"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "secret"),
        ({"secret": ""}, "secret"),
        ({"secret": "no\nheader"}, "secret"),
        ({"secret": " s "}, "secret"),
        ({"secret": "s", "weight": 0}, "weight"),
        ({"secret": "s", "rpm": -1}, "rpm"),
        ({"secret": "s", "base_url": "ftp://x"}, "base_url"),
        ({"secret": "s", "proxy": "proxy:1"}, "proxy"),
        ({"secret": "s", "colour": 1}, "colour"),
        ({"secret": "s", "id": "a\x00b"}, "id"),
        ([], None),
        ([{"secret": "s"}, {"weight": 1}], "[1].secret"),
    ],
)
async def test_an_invalid_key_is_refused_with_the_name_of_the_field(
    keeper: Client, body: Any, field: str | None
) -> None:
    status, param, message = await keeper.error("POST", KEYS, body)
    assert (status, param) == (400, field), message
    assert await ids(keeper) == ["code"]


async def test_a_key_is_edited_and_its_secret_replaced(keeper: Client, pool: KeyPool) -> None:
    await keeper("POST", KEYS, {"secret": "sk-1", "id": "a", "rpm": 5})
    answer = await keeper("PATCH", KEYS + "/a", {"secret": "sk-2", "rpm": None, "weight": 9})
    assert answer.status == 200, answer.body
    assert (answer.json["rpm"], answer.json["weight"]) == (None, 9)
    assert pool.keys["a"].secret == "sk-2"
    assert (await keeper.error("PATCH", KEYS + "/a", {"id": "b"}))[:2] == (400, "id")
    assert (await keeper.error("PATCH", KEYS + "/a", {"secret": "x\ny"}))[:2] == (400, "secret")
    assert (await keeper.error("PATCH", KEYS + "/none", {"weight": 2}))[0] == 404


async def test_a_key_is_disabled_enabled_and_removed(keeper: Client, pool: KeyPool) -> None:
    await keeper("POST", KEYS, {"secret": "sk-1", "id": "a"})
    assert (await keeper("POST", KEYS + "/a/disable")).json["health"] == "dead"
    assert (await keeper("POST", KEYS + "/code/disable")).json["health"] == "dead"
    reported = (await keeper("GET", "/providers/openai")).json
    assert reported["keys"] == {"dead": 2}
    assert (await keeper("POST", KEYS + "/a/enable")).json["health"] == "ok"
    assert (await keeper("DELETE", KEYS + "/a")).json == {"ok": True}
    assert await ids(keeper) == ["code"]
    assert (await keeper("DELETE", KEYS + "/a")).status == 404
    assert (await keeper("POST", KEYS + "/a/enable")).status == 404
    assert (await keeper("DELETE", KEYS + "/code")).status == 409  # it is in the configuration
    assert (await keeper("GET", KEYS + "/code")).json["health"] == "dead"


async def test_keys_are_listed_page_by_page(keeper: Client) -> None:
    await keeper("POST", KEYS, [{"secret": f"sk-{n}", "id": f"k{n}"} for n in range(6)])
    found, after = [], ""
    while after is not None:
        page = (await keeper("GET", f"{KEYS}?limit=3&after={after}")).json
        found += [key["id"] for key in page["data"]]
        assert len(page["data"]) <= 3
        after = page["next"]
    assert found == ["code", *(f"k{n}" for n in range(6))]


async def test_providers_are_listed_with_their_keys_health(keeper: Client) -> None:
    page = (await keeper("GET", "/providers")).json
    assert [(p["name"], p["keys"]) for p in page["data"]] == [
        ("anthropic", {}),
        ("openai", {"ok": 1}),
    ]
    assert page["data"][1]["base_url"] == OPENAI.base_url
    assert (await keeper("GET", "/providers?limit=1")).json["next"] == "anthropic"
    for path in ("/providers/none", "/providers/none/keys", "/providers/anthropic/keys"):
        assert (await keeper("GET", path)).status == 404


# ── lists ────────────────────────────────────────────────────────────────────


async def test_a_list_of_keys_is_imported(keeper: Client, pool: KeyPool) -> None:
    text = (
        "\ufeff# ours\n\nsk-plain\r\nnamed sk-named\nother,sk-other\n"
        '{"id": "full", "secret": "sk-full", "weight": 4}\n'
    )
    answer = await keeper("POST", "/providers/openai/import", text.encode())
    assert answer.status == 201, answer.body
    assert answer.json["ids"][1:] == ["named", "other", "full"]
    secrets = {key.secret for key in pool.keys.values()}
    assert secrets == {"sk-of-the-code", "sk-plain", "sk-named", "sk-other", "sk-full"}
    assert pool.keys["full"].weight == 4


async def test_of_ten_thousand_lines_the_three_invalid_ones_are_named_and_nothing_is_written(
    keeper: Client, store: Store
) -> None:
    lines = [f"k{n} sk-{n}" for n in range(10_000)]
    lines[16] = "a b c"
    lines[4711] = "k3 sk-again"
    lines[9998] = '{"secret": "s", "weight": 0}'
    answer = await keeper("POST", "/providers/openai/import", "\n".join(lines).encode())
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "bad_lines", "lines")
    assert [bad["line"] for bad in error["lines"]] == [17, 4712, 9999]
    assert "line 4: " not in error["message"]
    assert "also used in line 4" in error["lines"][1]["error"]
    assert await store.rows("keys:openai") == {}
    assert await ids(keeper) == ["code"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\xff\xfe", "not valid UTF-8"),
        (b"a b c", "expected a secret, or an id and a secret"),
        (b'{"id": "a"}', "secret: it is missing"),
        (b'{"secret": "s", "rpm": "5"}', "rpm: "),
        (b'{"secret": ', "not valid JSON"),
        ("a schlüssel".encode(), "cannot be sent in an HTTP header"),
    ],
)
async def test_an_invalid_line_is_reported_with_the_reason(
    keeper: Client, line: bytes, words: str
) -> None:
    answer = await keeper("POST", "/providers/openai/import", b"good sk-1\n" + line)
    (bad,) = answer.json["error"]["lines"]
    assert (answer.status, bad["line"], words in bad["error"]) == (400, 2, True), bad
    many = await keeper("POST", "/providers/openai/import", b"\n" * 100_001)
    assert (many.status, many.json["error"]["param"]) == (400, "lines")


async def test_ten_thousand_keys_are_imported_at_once(keeper: Client) -> None:
    lines = "\n".join(f"k{n} sk-{n}" for n in range(10_000))
    answer = await keeper("POST", "/providers/openai/import", lines.encode())
    assert len(answer.json["ids"]) == 10_000
    assert (await keeper("GET", "/providers/openai")).json["keys"] == {"ok": 10_001}
    again = await keeper("POST", "/providers/openai/import", b"k5 sk-new")
    assert again.json["error"]["lines"] == [{"line": 1, "error": "the key 'k5' already exists"}]


async def test_an_import_can_replace_all_keys(keeper: Client) -> None:
    await keeper("POST", KEYS, {"secret": "sk-1", "id": "old"})
    path = "/providers/openai/import?replace=true"
    assert (await keeper("POST", path, b"new sk-2")).status == 201
    assert await ids(keeper) == ["code", "new"]
    assert (await keeper.error("POST", path, b"\n# nothing\n"))[:2] == (400, "lines")
    assert await ids(keeper) == ["code", "new"]


async def test_without_a_sealer_no_secret_is_written_unencrypted(store: Store) -> None:
    async with KeyPool(["sk-1"], name="openai", store=store) as pool:
        client = Client(AdminApp(store, token=ROOT, pools=[pool]))
        status, _, message = await client.error("POST", KEYS, {"secret": SECRET})
        assert (status, "Sealer" in message, SECRET in message) == (400, True, False)
    assert await store.rows("keys:openai") == {}


async def test_a_pool_without_a_store_is_managed_too() -> None:
    pool = KeyPool(["sk-1"], name="openai")
    client = Client(AdminApp(MemoryStore(), token=ROOT, pools=[pool]))
    assert (await client("POST", KEYS, {"secret": "sk-2", "id": "b"})).status == 201
    assert pool.keys["b"].secret == "sk-2"
    assert (await client("DELETE", KEYS + "/b")).status == 200
    assert (await client("POST", KEYS + "/b/test")).status == 404
    assert (await client("POST", "/providers/openai/test")).status == 409  # whose is it?


def test_two_pools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Two key pools are named 'a'"):
        AdminApp(MemoryStore(), token=ROOT, pools=[KeyPool(name="a"), KeyPool(name="a")])


# ── trials ───────────────────────────────────────────────────────────────────


@pytest.fixture
def tried() -> Callable[[str], Client]:
    def tried(url: str) -> Client:
        pool = KeyPool([Key("sk-good", id="good"), Key("sk-other", id="other")], name="openai")
        provider = OPENAI.using(pool, base_url=url + "/v1")
        return Client(AdminApp(MemoryStore(), token=ROOT, providers=[provider]))

    return tried


async def test_a_key_is_tested_and_timed(tried: Callable[[str], Client]) -> None:
    mock = MockProvider(Answer(text="Hi"))
    async with serve(mock) as url:
        client = tried(url)
        found = (await client("POST", KEYS + "/good/test")).json
        assert (found["id"], found["ok"], found["status"], found["error"]) == (
            "good",
            True,
            200,
            "",
        )
        assert 0 < found["latency_ms"] < 10_000
        found = (await client("POST", KEYS + "/other/test?model=gpt-4o")).json
        assert found["ok"]
        seen = mock.requests
        assert [(s.method, s.path) for s in seen] == [
            ("GET", "/v1/models"), ("POST", "/v1/chat/completions"),
        ]  # fmt: skip
        assert [s.headers["authorization"] for s in seen] == ["Bearer sk-good", "Bearer sk-other"]
        assert json.loads(seen[1].body)["model"] == "gpt-4o"


async def test_all_keys_are_tested_and_each_result_is_reported(
    tried: Callable[[str], Client],
) -> None:
    mock = MockProvider(Answer(text="Hi"))
    mock.script(Fault.status(401))
    async with serve(mock) as url:
        page = (await tried(url)("POST", "/providers/openai/test?model=gpt-4o")).json
    assert sorted((one["ok"], one["status"]) for one in page["data"]) == [(False, 401), (True, 200)]
    assert sorted(one["id"] for one in page["data"]) == ["good", "other"]
    assert all(one["error"] for one in page["data"] if not one["ok"])


async def test_an_unknown_provider_is_reported(tried: Callable[[str], Client]) -> None:
    found = (await tried("http://127.0.0.1:9")("POST", KEYS + "/good/test")).json
    assert (found["ok"], found["status"]) == (False, 0)
    assert found["error"]


# ── where a secret goes ──────────────────────────────────────────────────────


async def by_scope(client: Client, scope: str) -> Client:
    issued = await client("POST", "/tokens", {"name": scope, "scopes": [scope]})
    return client.by(issued.json["secret"])


@pytest.fixture
def kept(store: Store) -> Client:
    """A pool with a secret and an address of the operator's own, given in code."""
    own = Key("sk-kept-secret", id="own", base_url="http://127.0.0.1:9/v1")
    pool = KeyPool([own], name="openai", store=store, sealer=Sealer("x" * 20))
    return Client(AdminApp(store, token=ROOT, providers=[OPENAI.using(pool)]))


ELSEWHERE: list[tuple[str, Any]] = [
    ("base_url", "https://1.1.1.1/v1"),
    ("base_url", None),
    ("proxy", "http://1.1.1.1:3128"),
    ("attributes", {"region": "elsewhere"}),
]


@pytest.mark.parametrize(("field", "value"), ELSEWHERE)
async def test_a_stored_secret_is_redirected_only_by_root_or_with_the_secret_sent_again(
    kept: Client, field: str, value: Any
) -> None:
    writer = await by_scope(kept, "write")
    change = {field: value}
    refused = await writer("PATCH", f"{KEYS}/own", change)
    assert (refused.status, refused.json["error"]["param"]) == (403, field)
    assert "with the scope 'root', or also send the secret" in refused.json["error"]["message"]
    assert (await kept("GET", f"{KEYS}/own")).json["base_url"] == "http://127.0.0.1:9/v1"
    assert (await writer("PATCH", f"{KEYS}/own", {"weight": 3})).status == 200
    brought = await writer("PATCH", f"{KEYS}/own", {**change, "secret": "sk-of-my-own"})
    assert brought.status == 200
    assert (await kept("PATCH", f"{KEYS}/own", change)).status == 200


async def test_a_change_that_changes_no_address_needs_no_root(kept: Client) -> None:
    writer = await by_scope(kept, "write")
    same = {"base_url": "http://127.0.0.1:9/v1", "proxy": None, "attributes": None, "rpm": 5}
    assert (await writer("PATCH", f"{KEYS}/own", same)).status == 200


PRIVATE = [
    "http://127.0.0.1:8000/v1", "http://localhost/v1", "http://127.1/", "http://2130706433/",
    "http://0.0.0.0:80/", "http://10.1.2.3/", "http://192.168.0.1/", "http://172.16.9.9/",
    "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://[::1]:8000/",
    "http://[fe80::1]/", "http://[fd00::1]/", "http://[::ffff:127.0.0.1]/", "http://[::]/",
    "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://224.0.0.1/",
    "http://user:password@127.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
async def test_keys_cannot_be_given_private_addresses_over_the_api_even_by_root(
    kept: Client, url: str
) -> None:
    new = {"secret": "sk-new", "id": "new"}
    for method, path, body, param in [
        ("POST", KEYS, {**new, "base_url": url}, "base_url"),
        ("POST", KEYS, [new, {"secret": "sk-2", "base_url": url}], "[1].base_url"),
        ("POST", KEYS, {**new, "proxy": url}, "proxy"),
        ("POST", f"{PROVIDER}/import", json.dumps({**new, "base_url": url}), "new: base_url"),
        ("PATCH", f"{KEYS}/own", {"base_url": url}, "base_url"),
        ("PATCH", f"{KEYS}/own", {"proxy": url}, "proxy"),
    ]:
        sent = body.encode() if isinstance(body, str) else body
        status, named, message = await kept.error(method, path, sent)
        assert (status, named) == (400, param), message
        assert "is not a public address" in message
        assert "password" not in message
    assert await ids(kept) == ["own"]


async def test_public_addresses_and_networks_the_operator_named_are_allowed(store: Store) -> None:
    pool = KeyPool(name="openai", store=store, sealer=Sealer("x" * 20))
    app = AdminApp(
        store, token=ROOT, providers=[OPENAI.using(pool)], private_networks=["10.0.0.0/8"]
    )
    client = Client(app)
    for number, url in enumerate(
        ("https://1.1.1.1/v1", "http://10.9.9.9/v1", "https://[2606:4700::1]/")
    ):
        body = {"secret": f"sk-{number}", "base_url": url}
        assert (await client("POST", KEYS, body)).status == 201, url
    assert (
        await client("POST", KEYS, {"secret": "s", "base_url": "http://127.0.0.1/"})
    ).status == 400
    with pytest.raises(ConfigurationError, match="Invalid IP address range"):
        AdminApp(store, token=ROOT, private_networks=["10.0.0.0/99"])


async def test_a_key_with_a_private_address_is_not_tested_unless_the_configuration_has_it(
    store: Store,
) -> None:
    """As if it was stored before, or its name resolves to such an address by now."""
    mock = MockProvider(Answer(text="Hi"))
    async with serve(mock) as url:
        own = Key("sk-own", id="own", base_url=f"{url}/v1")
        pool = KeyPool([own], name="openai", store=store, sealer=Sealer("x" * 20))
        await pool.add(Key("sk-stored", id="stored", base_url=f"{url}/v1"))
        client = Client(AdminApp(store, token=ROOT, providers=[OPENAI.using(pool)]))
        assert (await client("POST", f"{KEYS}/own/test")).json["ok"]
        assert (await client.error("POST", f"{KEYS}/stored/test"))[:2] == (400, "base_url")
        tried = (await client("POST", f"{PROVIDER}/test")).json["data"]
        assert [(trial["id"], trial["ok"]) for trial in tried] == [("own", True), ("stored", False)]
    assert {request.headers["authorization"] for request in mock.requests} == {"Bearer sk-own"}


async def test_a_key_with_an_existing_id_is_a_409_that_names_it(kept: Client) -> None:
    for body in (
        {"secret": "sk-2", "id": "own"},
        [{"secret": "sk-3"}, {"secret": "sk-2", "id": "own"}],
    ):
        answer = await kept("POST", KEYS, body)
        assert answer.status == 409
        assert "'own'" in answer.json["error"]["message"]
    assert await ids(kept) == ["own"]
