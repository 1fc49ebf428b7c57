"""One API's management calls: envelope, sessions, users, tokens, channels, codes, options, log."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import ConfigurationError, MemoryStore
from asgi_aiproxy.accounts.passwords import Passwords
from asgi_aiproxy.accounts.totp import SecondFactor
from asgi_aiproxy.accounts.users import Users
from asgi_aiproxy.compat import OneAPIRoutes
from tests.compat.oneapi_client import HI, ROOT, OneAPI
from tests.support import asgi_client as asgi
from tests.support.compat_vendors import Vendors
from tests.support.scripted_upstream import Step, refuses

pytestmark = pytest.mark.anyio


# ── who may call ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/user/self"),
        ("GET", "/api/token/"),
        ("GET", "/api/channel/"),
        ("POST", "/api/redemption/"),
        ("GET", "/api/option/"),
        ("GET", "/api/log/"),
        ("GET", "/api/group/"),
    ],
)
async def test_a_call_without_a_session_is_401_and_with_a_wrong_token_fails(
    method: str, path: str
) -> None:
    one = OneAPI()
    answer = await one.answer(method, path, token="")
    assert (answer.status, answer.json["success"]) == (401, False)
    await one.fails(method, path, token="0" * 32)
    await one.fails(method, path, token="Bearer " + "0" * 32)


async def test_roles_decide_which_calls_are_allowed() -> None:
    one = OneAPI()
    _, alice = await one.user("alice")
    await one.call("GET", "/api/user/self", token=alice)
    await one.fails("GET", "/api/channel/", token=alice)
    await one.fails("GET", "/api/option/", token=alice)
    await one.call("POST", "/api/user/manage", {"username": "alice", "action": "promote"})
    await one.call("GET", "/api/channel/", token=alice)
    await one.fails("GET", "/api/option/", token=alice)
    await one.fails("POST", "/api/user/manage", {"username": "root", "action": "disable"}, alice)


async def test_a_root_password_is_required() -> None:
    with pytest.raises(ConfigurationError, match="root_password"):
        OneAPIRoutes(MemoryStore(), root_password="")


# ── sessions ─────────────────────────────────────────────────────────────────


async def test_sign_up_sign_in_and_out() -> None:
    one = OneAPI()
    body = {"username": "bob", "password": "password-1"}
    assert (await one.answer("POST", "/api/user/register", body, token="")).json["success"]
    assert (
        "taken" in (await one.answer("POST", "/api/user/register", body, token="")).json["message"]
    )
    answer = await one.answer("POST", "/api/user/login", body, token="")
    assert answer.json["data"]["username"] == "bob"
    assert answer.json["data"]["role"] == 1
    cookie = str(answer.header("set-cookie"))
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    session = cookie.partition(";")[0]
    me = await one.answer("GET", "/api/user/self", token="", cookie=session)
    assert me.json["data"]["username"] == "bob"
    assert me.json["data"]["password"] == ""
    tokens = await one.answer("GET", "/api/token/", token="", cookie=session)
    assert [token["name"] for token in tokens.json["data"]] == ["default"]
    out = await one.answer("GET", "/api/user/logout", token="", cookie=session)
    assert "Max-Age=0" in str(out.header("set-cookie"))
    forged = session[:-3] + "abc"
    assert (await one.answer("GET", "/api/user/self", token="", cookie=forged)).status == 401


async def test_root_signs_in_with_the_configured_password() -> None:
    one = OneAPI()
    session = await one.login("root", ROOT)
    me = await one.answer("GET", "/api/user/self", token="", cookie=session)
    assert (me.json["data"]["id"], me.json["data"]["role"]) == (1, 100)
    for password in ("123456", "wrong-password"):
        answer = await one.answer(
            "POST", "/api/user/login", {"username": "root", "password": password}, token=""
        )
        assert answer.json["success"] is False


async def test_the_password_of_root_cannot_be_guessed_without_limit_as_an_access_token() -> None:
    one = OneAPI()
    _, alice = await one.user("alice")
    for number in range(20):
        assert "invalid" in await one.fails("GET", "/api/user/self", token=f"guess-{number}")
    for token in ("guess-20", ROOT):
        answer = await one.answer("GET", "/api/user/self", token=token)
        assert (answer.status, answer.json["success"]) == (429, False)
        assert "Too many" in answer.json["message"]
    await one.call("GET", "/api/user/self", token=alice)  # a valid token is always accepted


async def test_another_configured_password_of_root_ends_its_sessions() -> None:
    one = OneAPI()
    session = await one.login("root", ROOT)
    changed = OneAPIRoutes(one.store, root_password="another-password")
    for app, status in ((one.app, 200), (changed, 401)):
        me = await asgi.request(app, "GET", "/api/user/self", headers={"cookie": session})
        assert me.status == status


async def test_a_new_password_ends_all_sessions() -> None:
    one = OneAPI()
    await one.user("alice")
    session = await one.login("alice", "password-1")
    body = {"password": "password-2"}
    changed = await one.answer("PUT", "/api/user/self", body, token="", cookie=session)
    assert changed.json["success"]
    assert (await one.answer("GET", "/api/user/self", token="", cookie=session)).status == 401
    await one.login("alice", "password-2")


async def test_a_second_factor_is_not_gone_around() -> None:
    one = OneAPI()
    id, _ = await one.user("alice")
    session = await one.login("alice", "password-1")
    factor = SecondFactor(secret="sealed", since=1.0)
    users = Users(one.store)
    await users.edit(id, lambda row: msgspec.structs.replace(row, totp=factor))
    assert (await one.answer("GET", "/api/user/self", token="", cookie=session)).status == 401
    body = {"username": "alice", "password": "password-1"}
    message = await one.fails("POST", "/api/user/login", body, token="")
    assert "second factor" in message


@pytest.mark.parametrize(
    "body",
    [
        {"username": "a" * 13, "password": "password-1"},
        {"username": "bob", "password": "short"},
        {"username": "bob", "password": "x" * 21},
        {"username": "", "password": "password-1"},
        {"username": 7, "password": "password-1"},
    ],
)
async def test_invalid_sign_ups_are_refused(body: dict[str, Any]) -> None:
    one = OneAPI()
    answer = await one.answer("POST", "/api/user/register", body, token="")
    assert (answer.status, answer.json["success"]) == (200, False)


async def test_a_name_that_does_not_exist_costs_the_same_work_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = OneAPI()
    await one.user("alice")
    verified: list[bool] = []
    verify = Passwords.verify

    async def counted(self: Passwords, password: str, stored: str) -> bool:
        verified.append(bool(stored))
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", counted)
    for name in ("alice", "other"):
        body = {"username": name, "password": "wrong password"}
        await one.fails("POST", "/api/user/login", body, token="")
    assert verified == [True, False]


async def test_too_many_wrong_passwords_from_one_address_are_refused() -> None:
    one = OneAPI()
    body = {"username": "root", "password": "wrong-password"}
    for _ in range(21):
        answer = await one.answer("POST", "/api/user/login", body, token="")
    assert "Too many" in answer.json["message"]


async def test_registration_can_be_switched_off_and_rewards_invitations() -> None:
    one = OneAPI()
    for key, value in (("QuotaForNewUser", "100"), ("QuotaForInviter", "30"),
                       ("QuotaForInvitee", "7")):  # fmt: skip
        await one.call("PUT", "/api/option/", {"key": key, "value": value})
    _, alice = await one.user("alice", quota=0)
    code = await one.call("GET", "/api/user/aff", token=alice)
    assert len(code) == 4
    body = {"username": "bob", "password": "password-1", "aff_code": code}
    assert (await one.answer("POST", "/api/user/register", body, token="")).json["success"]
    users = {u["username"]: u for u in await one.call("GET", "/api/user/")}
    assert (users["bob"]["quota"], users["alice"]["quota"]) == (107, 130)
    assert users["bob"]["inviter_id"] == users["alice"]["id"]
    await one.call("PUT", "/api/option/", {"key": "RegisterEnabled", "value": "false"})
    answer = await one.answer("POST", "/api/user/register", {**body, "username": "c"}, token="")
    assert answer.json["success"] is False


# ── users ────────────────────────────────────────────────────────────────────


async def test_users_are_listed_ten_a_page_newest_first() -> None:
    one = OneAPI()
    for index in range(12):
        body = {"username": f"u{index}", "password": "password-1"}
        await one.call("POST", "/api/user/", body)
    first = [u["username"] for u in await one.call("GET", "/api/user/?p=0")]
    second = [u["username"] for u in await one.call("GET", "/api/user/?p=1")]
    assert first == [f"u{index}" for index in range(11, 1, -1)]
    assert second == ["u1", "u0", "root"]
    found = await one.call("GET", "/api/user/search?keyword=u1")
    assert {u["username"] for u in found} == {"u1", "u10", "u11"}


async def test_an_edit_writes_what_is_not_empty() -> None:
    one = OneAPI()
    id, _ = await one.user("alice", quota=5000)
    await one.call("PUT", "/api/user/", {"id": id, "quota": 0, "display_name": "Al"})
    shown = await one.call("GET", f"/api/user/{id}")
    assert (shown["quota"], shown["display_name"], shown["group"]) == (5000, "Al", "default")
    await one.call("PUT", "/api/user/", {"id": id, "quota": 70, "group": "vip"})
    shown = await one.call("GET", f"/api/user/{id}")
    assert (shown["quota"], shown["group"]) == (70, "vip")
    await one.fails("PUT", "/api/user/", {"id": id, "role": 100})
    await one.fails("PUT", "/api/user/", {"id": 999, "quota": 5})
    assert (await one.call("GET", "/api/user/1"))["username"] == "root"  # root sees all


async def test_deleting_a_user_answers_200_with_an_empty_body() -> None:
    one = OneAPI()
    await one.channel()
    id, alice = await one.user("alice")
    _, key = await one.token(alice)
    assert (await one.chat(key)).status == 200
    answer = await one.answer("DELETE", f"/api/user/{id}")
    assert (answer.status, answer.body) == (200, b"")
    await one.fails("GET", f"/api/user/{id}")
    await one.fails("GET", "/api/user/self", token=alice)
    assert (await one.chat(key)).status == 401


async def test_a_disabled_user_can_neither_manage_nor_call() -> None:
    one = OneAPI()
    await one.channel()
    _, alice = await one.user("alice")
    _, key = await one.token(alice)
    data = await one.call("POST", "/api/user/manage", {"username": "alice", "action": "disable"})
    assert data["status"] == 2
    await one.fails("GET", "/api/user/self", token=alice)
    assert (await one.chat(key)).status in (401, 403)
    await one.call("POST", "/api/user/manage", {"username": "alice", "action": "enable"})
    await one.call("GET", "/api/user/self", token=alice)


# ── tokens ───────────────────────────────────────────────────────────────────


async def test_tokens_are_created_listed_changed_and_deleted() -> None:
    one = OneAPI()
    _, alice = await one.user("alice")
    body = {"name": "n" * 30, "remain_quota": 500, "expired_time": -1}
    made = await one.call("POST", "/api/token/", body, alice)
    assert len(made["key"]) == 48
    assert (made["status"], made["remain_quota"], made["unlimited_quota"]) == (1, 500, False)
    await one.fails("POST", "/api/token/", {**body, "name": "n" * 31}, alice)
    await one.fails("POST", "/api/token/", {**body, "name": ""}, alice)

    changed = {**made, "name": "new", "remain_quota": 0}
    shown = await one.call("PUT", "/api/token/", changed, alice)
    assert (shown["name"], shown["remain_quota"], shown["status"]) == ("new", 0, 4)
    await one.fails("PUT", "/api/token/?status_only=1", {"id": made["id"], "status": 1}, alice)
    shown = await one.call("PUT", "/api/token/", {**changed, "remain_quota": 9, "status": 0}, alice)
    assert (shown["remain_quota"], shown["status"]) == (9, 1)
    body = {"id": made["id"], "status": 2, "name": "ignored"}
    shown = await one.call("PUT", "/api/token/?status_only=1", body, alice)
    assert (shown["status"], shown["name"]) == (2, "new")
    found = await one.call("GET", "/api/token/search?keyword=ne", token=alice)
    assert [token["name"] for token in found] == ["new"]
    await one.fails("GET", f"/api/token/{made['id']}")  # root has no token with this number
    await one.call("DELETE", f"/api/token/{made['id']}", token=alice)
    await one.fails("GET", f"/api/token/{made['id']}", token=alice)


async def test_an_expired_token_must_get_another_expiry_before_it_is_enabled() -> None:
    one = OneAPI()
    id, key = await one.token(expired_time=1_000_000_000)
    shown = await one.call("GET", f"/api/token/{id}")
    assert shown["status"] == 3
    assert (await one.chat(key)).status == 401
    await one.fails("PUT", "/api/token/?status_only=1", {"id": id, "status": 1})
    await one.call("PUT", "/api/token/", {"id": id, "name": "t", "expired_time": -1,
                                          "unlimited_quota": True})  # fmt: skip
    await one.channel()
    assert (await one.chat(key)).status == 200


# ── channels ─────────────────────────────────────────────────────────────────


async def test_channels_are_created_in_bulk_and_never_show_their_key() -> None:
    one = OneAPI()
    body = {"type": 1, "key": "sk-a\nsk-b\n\nsk-c", "name": "bulk", "models": "gpt-4,gpt-3.5-turbo"}
    await one.call("POST", "/api/channel/", {**body, "group": "default,vip", "priority": 3})
    rows = await one.call("GET", "/api/channel/")
    assert [row["id"] for row in rows] == [3, 2, 1]
    assert {row["key"] for row in rows} == {""}
    assert {(row["status"], row["priority"], row["group"]) for row in rows} == {
        (1, 3, "default,vip")
    }
    assert [r["id"] for r in await one.call("GET", "/api/channel/search?keyword=sk-b")] == [2]
    assert len(await one.call("GET", "/api/channel/search?keyword=bul")) == 3
    for path in ("/api/channel/", "/api/channel/1", "/api/channel/search?keyword=bulk"):
        assert b"sk-" not in (await one.answer("GET", path)).body


async def test_a_channel_edit_empties_the_base_url_and_keeps_what_is_not_given() -> None:
    one = OneAPI()
    id = await one.channel(base_url="https://mirror.example", models="gpt-4", weight=5)
    shown = await one.call("PUT", "/api/channel/", {"id": id, "base_url": "", "models": ""})
    assert (shown["base_url"], shown["models"], shown["weight"]) == ("", "gpt-4", 5)
    shown = await one.call("PUT", "/api/channel/", {"id": id, "weight": 0, "status": 2})
    assert (shown["weight"], shown["status"]) == (0, 2)
    assert await one.call("DELETE", "/api/channel/disabled") == 1
    await one.fails("GET", f"/api/channel/{id}")
    await one.call("DELETE", f"/api/channel/{id}")


@pytest.mark.parametrize(
    "fields",
    [
        {"type": 0},
        {"type": 11},
        {"type": 999},
        {"type": 8, "base_url": ""},
        {"type": 3, "base_url": "not a url"},
        {"key": ""},
        {"key": "has a space "},
        {"model_mapping": "[1"},
        {"base_url": "ftp://x"},
        {"weight": -1},
        {"models": 7},
    ],
)
async def test_an_invalid_channel_is_refused(fields: dict[str, Any]) -> None:
    one = OneAPI()
    body = {"type": 1, "key": "sk-a", "name": "c", "models": "gpt-4", **fields}
    if fields.get("key") == "has a space ":
        body["key"] = "has\tcontrol"
    await one.fails("POST", "/api/channel/", body)
    assert await one.call("GET", "/api/channel/") == []


async def test_a_channel_test_answers_seconds_and_stores_the_latency() -> None:
    one = OneAPI()
    id = await one.channel(models="gpt-4,gpt-3.5-turbo,own-model")
    answer = await one.answer("GET", f"/api/channel/test/{id}")
    assert answer.json["success"] is True
    assert answer.json["time"] >= 0
    assert one.vendors.body["model"] == "gpt-3.5-turbo"
    assert one.vendors.body.get("max_completion_tokens", one.vendors.body.get("max_tokens")) == 1
    assert (await one.call("GET", f"/api/channel/{id}"))["test_time"] > 0
    async with one.app:
        await one.call("GET", "/api/channel/test")
    listed = await one.answer("GET", "/api/channel/models")
    assert {m["id"] for m in listed.json["data"]} >= {"gpt-4", "gpt-3.5-turbo", "own-model"}


@pytest.mark.parametrize(
    ("fields", "answers", "balance", "urls"),
    [
        ({"type": 36}, [{"is_available": True, "balance_infos": [
            {"currency": "CNY", "total_balance": "9.00"},
            {"currency": "USD", "total_balance": "1.50"}]}], 1.5,
         ["https://api.deepseek.com/user/balance"]),
        ({"type": 25}, [{"code": 0, "data": {"available_balance": 49.5}}], 49.5,
         ["https://api.moonshot.cn/v1/users/me/balance"]),
        ({"type": 20}, [{"data": {"total_credits": 100.5, "total_usage": 25.5}}], 75.0,
         ["https://openrouter.ai/api/v1/credits"]),
        ({"type": 8, "base_url": "https://one.example"},
         [{"hard_limit_usd": 12.0}, {"total_usage": 250}], 9.5,
         ["https://one.example/v1/dashboard/billing/subscription",
          "https://one.example/v1/dashboard/billing/usage"]),
        ({"type": 25}, [{"code": 0, "data": {"available_balance": 0}}], 0.0,
         ["https://api.moonshot.cn/v1/users/me/balance"]),
    ],
)  # fmt: skip
async def test_a_balance_is_read_stored_and_a_channel_without_credit_disabled(
    fields: dict[str, Any], answers: list[Any], balance: float, urls: list[str]
) -> None:
    steps = [Step([json.dumps(answer).encode()]) for answer in answers]
    one = OneAPI(Vendors(*steps, *steps))
    id = await one.channel(**fields)
    answer = await one.answer("GET", f"/api/channel/update_balance/{id}")
    assert answer.json == {"success": True, "message": "", "balance": balance}
    assert [str(request.url).partition("?")[0] for request in one.vendors.requests] == urls
    assert set(one.vendors.keys) == {"sk-vendor"}
    shown = await one.call("GET", f"/api/channel/{id}")
    assert (shown["balance"], shown["balance_updated_time"] > 0) == (balance, True)
    await one.call("GET", "/api/channel/update_balance")
    assert (await one.call("GET", f"/api/channel/{id}"))["status"] == (1 if balance else 3)


@pytest.mark.parametrize(
    ("fields", "step", "problem"),
    [
        ({"type": 1}, None, "does not report"),
        ({"type": 14}, None, "does not report"),
        ({"type": 36}, refuses(401), "status 401"),
        ({"type": 36}, Step([b"<html>"]), "not the documented one"),
        ({"type": 25}, Step([b"{}"]), "not the documented one"),
    ],
)
async def test_a_balance_that_cannot_be_read_changes_nothing(
    fields: dict[str, Any], step: Step | None, problem: str
) -> None:
    one = OneAPI(Vendors(*[step, step] if step else ()))
    id = await one.channel(**fields)
    assert problem in await one.fails("GET", f"/api/channel/update_balance/{id}")
    await one.call("GET", "/api/channel/update_balance")
    shown = await one.call("GET", f"/api/channel/{id}")
    assert (shown["status"], shown["balance"], shown["balance_updated_time"]) == (1, 0, 0)


async def test_the_calls_of_an_address_can_be_limited() -> None:
    one = OneAPI(api_limit=3)
    for _ in range(3):
        await one.call("GET", "/api/notice")
    for path in ("/api/status", "/api/user/self"):
        answer = await one.answer("GET", path)
        assert (answer.status, answer.json["success"]) == (429, False)
    assert (await one.answer("GET", "/v1/models")).status == 401  # the relay has limits of its own


# ── redemption codes ─────────────────────────────────────────────────────────


async def test_codes_are_generated_listed_and_redeemed_once() -> None:
    one = OneAPI()
    body = {"name": "batch", "count": 3, "quota": 500}
    codes = await one.call("POST", "/api/redemption/", body)
    assert all(len(code) == 32 and int(code, 16) >= 0 for code in codes)
    rows = await one.call("GET", "/api/redemption/")
    assert [row["key"] for row in rows] == codes[::-1]
    assert {(row["status"], row["quota"]) for row in rows} == {(1, 500)}
    id, alice = await one.user("alice", quota=100)
    assert await one.call("POST", "/api/user/topup", {"key": codes[0]}, alice) == 500
    await one.fails("POST", "/api/user/topup", {"key": codes[0]}, alice)
    await one.fails("POST", "/api/user/topup", {"key": codes[0]})
    await one.fails("POST", "/api/user/topup", {"key": "0" * 32}, alice)
    assert (await one.call("GET", f"/api/user/{id}"))["quota"] == 600
    used = await one.call("GET", f"/api/redemption/{rows[2]['id']}")
    assert used["status"] == 3
    assert used["redeemed_time"] > 0


async def test_ten_parallel_redemptions_of_one_code_pay_once() -> None:
    one = OneAPI()
    (code,) = await one.call("POST", "/api/redemption/", {"name": "n", "count": 1, "quota": 500})
    id, alice = await one.user("alice", quota=100)
    answers = await asyncio.gather(
        *(one.answer("POST", "/api/user/topup", {"key": code}, alice) for _ in range(10))
    )
    assert [answer.json["success"] for answer in answers].count(True) == 1
    assert (await one.call("GET", f"/api/user/{id}"))["quota"] == 600


async def test_codes_are_disabled_changed_and_deleted() -> None:
    one = OneAPI()
    a, b = await one.call("POST", "/api/redemption/", {"name": "n", "count": 2, "quota": 500})
    ids = {row["key"]: row["id"] for row in await one.call("GET", "/api/redemption/")}
    body = {"id": ids[a], "status": 2}
    assert (await one.call("PUT", "/api/redemption/?status_only=1", body))["status"] == 2
    await one.fails("POST", "/api/user/topup", {"key": a})
    changed = {"id": ids[b], "name": "other", "quota": 70}
    assert (await one.call("PUT", "/api/redemption/", changed))["name"] == "other"
    assert await one.call("POST", "/api/user/topup", {"key": b}) == 70
    assert len(await one.call("GET", "/api/redemption/search?keyword=oth")) == 1
    await one.call("DELETE", f"/api/redemption/{ids[a]}")
    await one.fails("GET", f"/api/redemption/{ids[a]}")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "count": 1, "quota": 1},
        {"name": "n" * 21, "count": 1, "quota": 1},
        {"name": "n", "count": 0, "quota": 1},
        {"name": "n", "count": 101, "quota": 1},
        {"name": "n", "count": 1, "quota": 0},
    ],
)
async def test_invalid_codes_are_refused(body: dict[str, Any]) -> None:
    await OneAPI().fails("POST", "/api/redemption/", body)


# ── status, options, log ─────────────────────────────────────────────────────


async def test_status_needs_no_session() -> None:
    answer = await OneAPI().answer("GET", "/api/status", token="")
    data = answer.json["data"]
    assert (data["system_name"], data["quota_per_unit"]) == ("One API", 500000)
    assert set(data) >= {"version", "start_time", "display_in_currency", "top_up_link"}


async def test_options_are_set_and_shown_without_secrets() -> None:
    one = OneAPI()
    for key, value in (("Notice", "Hello"), ("SMTPToken", "secret-1"), ("GitHubClientSecret", "s")):
        await one.call("PUT", "/api/option/", {"key": key, "value": value})
    shown = {option["key"]: option["value"] for option in await one.call("GET", "/api/option/")}
    assert shown["Notice"] == "Hello"
    assert not {"SMTPToken", "GitHubClientSecret", "WeChatServerToken"} & set(shown)
    notice = await one.answer("GET", "/api/notice", token="")
    assert notice.json["data"] == "Hello"
    invalid = {
        "GroupRatio": "{",
        "QuotaForNewUser": "many",
        "QuotaForInvitee": "inf",
        "WeChatAuthEnabled": "true",
    }
    for key, value in invalid.items():
        await one.fails("PUT", "/api/option/", {"key": key, "value": value})
    ratios = {"key": "GroupRatio", "value": '{"default": 1, "team": 2}'}
    await one.call("PUT", "/api/option/", ratios)
    assert await one.call("GET", "/api/group/") == ["default", "team"]


async def test_the_log_has_calls_and_top_ups_of_everybody_or_of_oneself() -> None:
    one = OneAPI()
    await one.channel()
    _, alice = await one.user("alice")
    _, key = await one.token(alice, name="mine")
    async with one.app:
        assert (await one.chat(key)).status == 200
    await one.call("POST", "/api/topup", {"user_id": 2, "quota": 5, "remark": "gift"})
    calls = await one.call("GET", "/api/log/?type=2")
    assert [(e["username"], e["token_name"], e["model_name"]) for e in calls] == [
        ("alice", "mine", "gpt-4")
    ]
    assert (calls[0]["prompt_tokens"], calls[0]["completion_tokens"]) == (3, 2)
    # 15 for gpt-4, completion tokens count double
    assert calls[0]["quota"] == 15 * (3 + 2 * 2)
    assert (await one.call("GET", "/api/log/stat"))["quota"] == calls[0]["quota"]
    assert (await one.call("GET", "/api/log/self/stat", token=alice))["quota"] == 105
    assert (await one.call("GET", "/api/log/self/stat"))["quota"] == 0
    own = await one.call("GET", "/api/log/self?type=1", token=alice)
    assert [entry["content"] for entry in own] == ["gift"]
    for query in ("username=nobody-else", "token_name=x", "model_name=x", "end_timestamp=1"):
        assert await one.call("GET", f"/api/log/?type=2&{query}") == []
    assert len(await one.call("GET", "/api/log/search?keyword=gift")) == 1
    assert (await one.call("GET", "/api/user/dashboard", token=alice))[0]["RequestCount"] == 1
    me = await one.call("GET", "/api/user/self", token=alice)
    assert (me["used_quota"], me["request_count"]) == (105, 1)


async def test_state_survives_a_new_app_over_the_same_store() -> None:
    one = OneAPI()
    await one.channel()
    _, alice = await one.user("alice")
    _, key = await one.token(alice)
    again = OneAPI(one.vendors, one.store)
    assert (await again.chat(key)).status == 200
    await again.call("GET", "/api/user/self", token=alice)
    session = await one.login("alice", "password-1")
    answer = await again.answer("GET", "/api/user/self", token="", cookie=session)
    assert answer.status == 200


async def test_the_app_opens_and_closes_with_lifespan() -> None:
    one = OneAPI()
    async with asgi.lifespan(one.app):
        assert (await one.answer("GET", "/api/status", token="")).status == 200
    assert HI["model"] == "gpt-4"
