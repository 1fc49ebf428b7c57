"""The audit log: every change of every kind, without secrets, from the API and from code."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.keys import Key, KeyPool
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.services.audit import AuditEntry, AuditLog, AuditQuery
from asgi_aiproxy.services.base import Actor
from asgi_aiproxy.services.groups import AccountEdit, AccountNew, AccountService
from asgi_aiproxy.services.own_tokens import TokenAllowance
from asgi_aiproxy.services.tokens import TokenNew, TokenService
from asgi_aiproxy.stores import MemoryStore, Store, StoreUnavailableError
from tests.admin.conftest import ROOT, Client

pytestmark = pytest.mark.anyio

SECRETS = ("sk-vendor-one-0001", "sk-vendor-two-0002", "proxy-password", "attribute-secret")


async def entries(client: Client, query: str = "") -> list[dict[str, Any]]:
    answer = await client("GET", f"/audit{query}")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json["data"]
    return found


async def test_every_kind_of_change_over_the_api_is_recorded(
    store: Store, make: Callable[..., Client]
) -> None:
    client = make(store, pools=[KeyPool([Key("sk-vendor-one-0001", id="a")], name="spare")])

    async def send(method: str, path: str, body: Any = b"", status: int = 200) -> Any:
        answer = await client(method, path, body)
        assert answer.status == status, answer.body
        return answer.json

    await send("POST", "/groups", {"name": "gold"}, 201)
    await send("PATCH", "/groups/gold", {"ratio": 2})
    await send("POST", "/accounts", {"id": "acme", "budgets": ["5/day"]}, 201)
    await send("PATCH", "/accounts/acme", {"enabled": False})
    issued = await send("POST", "/tokens", {"name": "team-1", "rpm": 60, "group": "gold"}, 201)
    token = issued["token"]["id"]
    await send("PATCH", f"/tokens/{token}", {"rpm": 30})
    rotated = await send("POST", f"/tokens/{token}/rotate", {"grace": 60})
    await send("DELETE", f"/tokens/{token}")
    await send("DELETE", "/groups/gold")
    codes = (await send("POST", "/vouchers", {"count": 1, "usd": 2}, 201))["codes"]
    voucher = (await send("GET", "/vouchers"))["data"][0]["id"]
    await send("PATCH", f"/vouchers/{voucher}", {"enabled": False})
    await send("PATCH", f"/vouchers/{voucher}", {"enabled": True})
    await send("PATCH", "/accounts/acme", {"budgets": ["5"]})
    await send("POST", "/vouchers/redeem", {"code": codes[0], "target": "account/acme"})
    await send("DELETE", "/accounts/acme")
    keys = "/providers/spare/keys"
    new = {
        "secret": SECRETS[1],
        "id": "b",
        "proxy": "http://user:proxy-password@93.184.216.34:3128",
        "attributes": {"token": "attribute-secret"},
    }
    await send("POST", keys, new, 201)
    await send("PATCH", f"{keys}/b", {"rpm": 5})
    await send("POST", f"{keys}/b/disable")
    await send("POST", f"{keys}/b/enable")
    await send("DELETE", f"{keys}/b")
    await send("POST", "/providers/spare/import", b"sk-imported-number-3\n", 201)

    found = await entries(client)
    assert [(entry["action"], entry["target"]) for entry in reversed(found)] == [
        ("group.create", "group/gold"),
        ("group.edit", "group/gold"),
        ("account.create", "account/acme"),
        ("account.edit", "account/acme"),
        ("token.issue", f"token/{token}"),
        ("token.edit", f"token/{token}"),
        ("token.rotate", f"token/{token}"),
        ("token.revoke", f"token/{token}"),
        ("group.remove", "group/gold"),
        ("voucher.create", "batch/"),
        ("voucher.edit", f"voucher/{voucher}"),
        ("voucher.edit", f"voucher/{voucher}"),
        ("account.edit", "account/acme"),
        ("voucher.redeem", f"voucher/{voucher}"),
        ("account.remove", "account/acme"),
        ("key.add", "key/spare/b"),
        ("key.edit", "key/spare/b"),
        ("key.disable", "key/spare/b"),
        ("key.enable", "key/spare/b"),
        ("key.remove", "key/spare/b"),
        ("key.import", "key/spare"),
    ]
    assert {(entry["actor"], entry["source"]) for entry in found} == {("admin", "admin")}
    by_action = {entry["action"]: entry for entry in found}
    assert by_action["group.edit"]["before"] == {"ratio": 1.0}
    assert by_action["group.edit"]["after"] == {"ratio": 2.0}
    assert by_action["token.edit"]["before"] == {"limits": {"rpm": 60}}
    assert by_action["token.edit"]["after"] == {"limits": {"rpm": 30}}
    assert by_action["token.issue"].get("before") is None
    assert by_action["token.revoke"].get("after") is None
    assert by_action["token.revoke"]["before"]["name"] == "team-1"
    assert by_action["key.edit"]["after"] == {"rpm": 5}
    text = json.dumps(found)
    secrets = [*SECRETS, issued["secret"], rotated["secret"], *codes, "digest", ROOT]
    assert [secret for secret in secrets if secret in text] == []


async def test_refused_changes_and_reads_are_not_recorded(client: Client) -> None:
    for method, path, body in (
        ("PATCH", "/groups/none", {"ratio": 2}),
        ("DELETE", "/tokens/none", b""),
        ("POST", "/tokens", {"name": "x", "group": "none"}),
        ("GET", "/tokens", b""),
    ):
        await client(method, path, body)
    assert await entries(client) == []


async def test_an_entry_names_the_caller_its_address_and_its_request(
    store: Store, client: Client
) -> None:
    issued = await TokenService(store).issue(TokenNew(name="ops", scopes=("write",)))
    by_token = client.by(issued.secret)
    await by_token("POST", "/groups", {"name": "gold"}, **{"x-request-id": "change-42"})
    by_code, by_api = reversed(await entries(client))
    assert (by_code["actor"], by_code["source"]) == ("admin", "code")
    assert (by_api["actor"], by_api["actor_name"]) == (issued.token.id, "ops")
    assert by_api["source"] == "admin"
    assert by_api["request_id"] == "change-42"
    assert by_api["address"]


async def test_entries_are_filtered_and_paged(store: Store, client: Client) -> None:
    service = AccountService(store)
    operator = Actor(Principal("ann", "Ann", scopes=("write",)), "console", "192.0.2.1")
    for number in range(5):
        await service.create(AccountNew(id=f"a-{number}"), operator)
        await service.edit(f"a-{number}", AccountEdit(name="x"))
    assert len(await entries(client, "?actor=ann")) == 5
    assert len(await entries(client, "?actor=Ann&source=console&action=account")) == 5
    assert len(await entries(client, "?action=account.edit")) == 5
    assert len(await entries(client, "?target=account/a-1")) == 2
    assert await entries(client, "?target=account/a") == []
    assert await entries(client, "?until=1000") == []
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = (await client("GET", f"/audit?limit=3&after={after}")).json
        seen += [entry["id"] for entry in page["data"]]
        after = page["next"]
    assert len(seen) == len(set(seen)) == 10
    assert (await client("GET", "/audit?after=x")).status == 400


async def test_the_log_can_be_read_with_the_scope_read_only(store: Store, client: Client) -> None:
    service = TokenService(store)
    reader = await service.issue(TokenNew(name="reader", scopes=("read",)))
    plain = await service.issue(TokenNew(name="plain"))
    assert (await client.by(reader.secret)("GET", "/audit")).status == 200
    assert (await client.by(plain.secret)("GET", "/audit")).status == 403
    assert (await client.by(None)("GET", "/audit")).status == 401


async def test_old_entries_are_removed(store: Store) -> None:
    now = [1_000_000.0]
    log = AuditLog(store, retention_seconds=100, clock=lambda: now[0])
    for number in range(3):
        await log.record(Actor(), "x", f"x/{number}")
        now[0] += 60
    kept: list[AuditEntry] = (await log.page(AuditQuery())).data
    assert [entry.target for entry in kept] == ["x/2"]
    await log.record(Actor(), "x", "x/3")  # removes the old ones from the store, too
    assert [entry.target for entry in (await AuditLog(store).page(AuditQuery())).data] == [
        "x/3",
        "x/2",
    ]


async def test_large_values_are_left_out(store: Store) -> None:
    log = AuditLog(store)
    await log.record(Actor(), "x", "x/1", after={"models": ["m" * 100] * 1000, "name": "a"})
    (entry,) = (await log.page(AuditQuery())).data
    assert entry.after == {"omitted": ["models", "name"]}


class FailingLog(MemoryStore):
    """A store whose logs cannot be written."""

    async def append(self, *args: Any, **options: Any) -> None:
        raise StoreUnavailableError("away")


async def test_a_change_whose_entry_cannot_be_stored_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FailingLog()
    with caplog.at_level(logging.ERROR, "asgi_aiproxy.audit"):
        await AccountService(store).create(AccountNew(id="acme"))
    assert (await AccountService(store).get("acme")).id == "acme"
    (line,) = caplog.messages
    assert '"target":"account/acme"' in line


async def test_a_caller_without_the_scope_root_cannot_change_scopes(store: Store) -> None:
    writer = Actor(Principal("w", scopes=("write",)), "console")
    with pytest.raises(APIError, match="scope 'root'"):
        await TokenService(store).issue(TokenNew(name="x", scopes=("root",)), writer)


async def test_changes_that_callers_make_for_themselves_name_the_caller(
    store: Store, make: Callable[..., Client]
) -> None:
    client = make(store, self_service=TokenAllowance(tokens=2))
    team = await TokenService(store).issue(TokenNew(name="team-1"))
    own = client.by(team.secret)
    made = (await own("POST", "/me/tokens", {"name": "laptop"})).json["token"]["id"]
    await own("PATCH", f"/me/tokens/{made}", {"name": "desktop"})
    await own("POST", f"/me/tokens/{made}/rotate")
    await own("DELETE", f"/me/tokens/{made}")
    found = await entries(client, f"?target=token/{made}")
    assert {entry["actor"] for entry in found} == {team.token.id}
    assert [entry["action"] for entry in reversed(found)] == [
        "token.issue",
        "token.edit",
        "token.rotate",
        "token.revoke",
    ]
