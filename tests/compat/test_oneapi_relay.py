"""One API's relay: tokens, channels, quota, errors, models and billing."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from asgi_aiproxy import RedisStore
from asgi_aiproxy.keys import Sealer
from tests.compat.oneapi_client import OneAPI
from tests.support.compat_vendors import Vendors
from tests.support.scripted_upstream import Step, refuses

pytestmark = pytest.mark.anyio


async def test_a_users_token_reaches_a_channel_of_its_group() -> None:
    one = OneAPI()
    await one.channel(base_url="https://mirror.example", key="sk-upstream")
    _, key = await one.token()
    for sent in (key, key.removeprefix("sk-")):
        answer = await one.chat(sent)
        assert answer.status == 200, answer.body
    assert str(one.vendors.last.url) == "https://mirror.example/v1/chat/completions"
    assert one.vendors.keys == ["sk-upstream", "sk-upstream"]
    streamed = await one.chat(key, stream=True)
    assert streamed.events[-1] == "[DONE]"


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer sk-", "Bearer sk-" + "x" * 48])
async def test_a_missing_or_unknown_token_is_401_in_one_apis_form(authorization: str) -> None:
    one = OneAPI()
    answer = await one.answer("POST", "/v1/chat/completions", {"model": "m"}, authorization)
    assert answer.status == 401
    assert answer.json["error"]["type"] == "one_api_error"
    assert answer.json["error"]["param"] == ""
    assert answer.json["error"]["message"]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 429, 500, 502, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_error_of_a_vendor_keeps_its_status_and_code(
    status: int, stream: bool
) -> None:
    error = {"message": "Vendor says no", "type": "t", "param": None, "code": "vendor_code"}
    step = refuses(status, json.dumps({"error": error}).encode())
    one = OneAPI(Vendors(*[step] * 4))
    await one.channel()
    _, key = await one.token()
    answer = await one.chat(key, stream=stream)
    assert (answer.status, answer.json["error"]["code"]) == (status, "vendor_code")
    assert "www-authenticate" not in dict(answer.headers)


async def test_the_last_use_of_a_token_is_shown() -> None:
    one = OneAPI(clock=lambda: 1_700_000_000.0)
    await one.channel()
    id, key = await one.token()
    before = await one.call("GET", f"/api/token/{id}")
    assert before["accessed_time"] == before["created_time"] == 1_700_000_000
    async with one.app:
        assert (await one.chat(key)).status == 200
    used = await one.call("GET", f"/api/token/{id}")
    assert used["accessed_time"] > before["accessed_time"]
    assert used["created_time"] == before["created_time"]


async def test_without_a_channel_for_group_and_model_the_answer_is_503() -> None:
    one = OneAPI()
    await one.channel(models="gpt-4", group="vip")
    _, key = await one.token()
    for fields in ({}, {"model": "other"}):
        answer = await one.chat(key, **fields)
        assert answer.status == 503, answer.body
        assert answer.json["error"]["type"] == "one_api_error"
        assert "default" in answer.json["error"]["message"]
    id, alice = await one.user("alice")
    await one.call("PUT", "/api/user/", {"id": id, "group": "vip"})
    _, own = await one.token(alice)
    assert (await one.chat(own)).status == 200


async def test_a_disabled_channel_is_not_used() -> None:
    one = OneAPI()
    id = await one.channel()
    _, key = await one.token()
    await one.call("PUT", "/api/channel/", {"id": id, "status": 2})
    assert (await one.chat(key)).status == 503
    await one.call("PUT", "/api/channel/", {"id": id, "status": 1})
    assert (await one.chat(key)).status == 200


async def test_model_mapping_keeps_all_other_members() -> None:
    one = OneAPI()
    await one.channel(models="gpt-4", model_mapping='{"gpt-4": "my-model"}')
    _, key = await one.token()
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    await one.chat(key, tools=tools, presence_penalty=0.5)
    assert one.vendors.body["model"] == "my-model"
    assert (one.vendors.body["tools"], one.vendors.body["presence_penalty"]) == (tools, 0.5)


@pytest.mark.parametrize(
    ("type", "fields", "url"),
    [
        (1, {}, "https://api.openai.com/v1/chat/completions"),
        (8, {"base_url": "https://own.example"}, "https://own.example/v1/chat/completions"),
        (8, {"base_url": "https://own.example/v1/"}, "https://own.example/v1/chat/completions"),
        (50, {"base_url": "https://own.example/v3"}, "https://own.example/v3/chat/completions"),
        (5, {}, "https://api.openai-sb.com/v1/chat/completions"),
        (14, {}, "https://api.anthropic.com/v1/messages"),
        (24, {}, "https://generativelanguage.googleapis.com/v1beta/models/gpt-4:streamGenerateConte"
                 "nt"),
        (29, {"base_url": "https://g.example/openai"},
         "https://g.example/openai/v1/chat/completions"),
        (16, {"base_url": "https://z.example"},
         "https://z.example/api/paas/v4/chat/completions"),
        (16, {}, "https://open.bigmodel.cn/api/paas/v4/chat/completions"),
        (25, {}, "https://api.moonshot.cn/v1/chat/completions"),
        (20, {}, "https://openrouter.ai/api/v1/chat/completions"),
        (25, {"base_url": "https://m.example"}, "https://m.example/v1/chat/completions"),
        (3, {"base_url": "https://r.openai.azure.com", "other": "2024-10-21"},
         "https://r.openai.azure.com/openai/deployments/gpt-4/chat/completions"),
    ],
)  # fmt: skip
async def test_each_type_of_channel_has_its_address(
    type: int, fields: dict[str, Any], url: str
) -> None:
    one = OneAPI()
    await one.channel(type=type, **fields)
    _, key = await one.token()
    answer = await one.chat(key, stream=True)
    assert answer.status == 200, answer.body
    assert str(one.vendors.last.url).partition("?")[0] == url


async def test_vendors_can_be_pointed_elsewhere() -> None:
    one = OneAPI(bases={"openai": "https://elsewhere.example/v1"})
    await one.channel(type=1)
    _, key = await one.token()
    assert (await one.chat(key)).status == 200
    assert str(one.vendors.last.url) == "https://elsewhere.example/v1/chat/completions"


async def test_a_channels_azure_version_goes_before_the_callers() -> None:
    one = OneAPI()
    await one.channel(type=3, base_url="https://r.openai.azure.com", other="2024-10-21")
    _, key = await one.token()
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    path = "/v1/chat/completions?api-version=2020-01-01"
    answer = await one.answer("POST", path, body, f"Bearer {key}")
    assert answer.status == 200
    assert one.vendors.last.url.params["api-version"] == "2024-10-21"
    assert one.vendors.last.headers["api-key"] == "sk-vendor"


async def test_the_callers_azure_version_is_used_at_a_channel_without_one() -> None:
    one = OneAPI()
    await one.channel(type=3, base_url="https://r.openai.azure.com")
    _, key = await one.token()
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    path = "/v1/chat/completions?api-version=2024-02-01"
    for _ in range(2):
        answer = await one.answer("POST", path, body, f"Bearer {key}")
        assert answer.status == 200
        assert one.vendors.last.url.path == "/openai/deployments/gpt-4/chat/completions"
        assert one.vendors.last.url.params["api-version"] == "2024-02-01"
    await one.answer("POST", "/v1/chat/completions", body, f"Bearer {key}")
    assert one.vendors.last.url.path == "/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("model", "mapping", "deployment"),
    [
        ("gpt-3.5-turbo-0301", "", "gpt-35-turbo"),
        ("gpt-4-0613", "", "gpt-4"),
        ("gpt-4.1", '{"gpt-4.1": "my-4.1"}', "my-4.1"),
    ],
)
async def test_deployments_at_azure_are_named_as_before(
    model: str, mapping: str, deployment: str
) -> None:
    one = OneAPI()
    await one.channel(
        type=3, base_url="https://r.openai.azure.com", other="2024-10-21", models=model,
        model_mapping=mapping,
    )  # fmt: skip
    _, key = await one.token()
    assert (await one.chat(key, model=model)).status == 200
    path = f"/openai/deployments/{deployment}/chat/completions"
    assert one.vendors.last.url.path == path


# ── TOKEN-CHANNELID ──────────────────────────────────────────────────────────


async def test_an_administrators_token_selects_a_channel() -> None:
    one = OneAPI()
    for name in ("a", "b", "c"):
        await one.channel(key=f"sk-{name}")
    await one.channel(key="sk-off", status=2)
    _, key = await one.token()
    for id, secret in ((2, "sk-b"), (3, "sk-c"), (2, "sk-b")):
        assert (await one.chat(f"{key}-{id}")).status == 200
        assert one.vendors.keys[-1] == secret
    assert (await one.chat(f"{key}-99")).status == 400
    assert (await one.chat(f"{key}-x")).status == 400
    assert (await one.chat(f"{key}-4")).status == 403
    _, alice = await one.user("alice")
    _, own = await one.token(alice)
    assert (await one.chat(f"{own}-2")).status == 403


async def test_priority_and_failover() -> None:
    vendors = Vendors(refuses(429), refuses(500))
    one = OneAPI(vendors)
    await one.channel(key="sk-low", priority=0)
    await one.channel(key="sk-high", priority=5)
    await one.channel(key="sk-middle", priority=3)
    _, key = await one.token()
    assert (await one.chat(key)).status == 200
    assert vendors.keys == ["sk-high", "sk-middle", "sk-low"]


async def test_a_vendors_error_passes_with_its_status() -> None:
    one = OneAPI(Vendors(refuses(400)))
    await one.channel()
    _, key = await one.token()
    answer = await one.chat(key)
    assert answer.status == 400
    assert "no: 400" in answer.json["error"]["message"]


async def test_a_rejected_key_disables_its_channel_if_the_option_says_so() -> None:
    one = OneAPI(Vendors(refuses(401)))
    await one.call("PUT", "/api/option/", {"key": "AutomaticDisableChannelEnabled",
                                           "value": "true"})  # fmt: skip
    await one.channel(key="sk-bad", priority=5)
    await one.channel(key="sk-good")
    _, key = await one.token()
    async with one.app:
        assert (await one.chat(key)).status == 200
    rows = await one.call("GET", "/api/channel/")
    assert {row["id"]: row["status"] for row in rows} == {1: 3, 2: 1}


# ── quota ────────────────────────────────────────────────────────────────────


async def test_a_call_is_charged_to_the_token_and_its_user() -> None:
    one = OneAPI()
    await one.channel()
    id, alice = await one.user("alice", quota=100_000)
    token, key = await one.token(alice, unlimited_quota=False, remain_quota=50_000)
    async with one.app:
        assert (await one.chat(key)).status == 200
    user = await one.call("GET", f"/api/user/{id}")
    shown = await one.call("GET", f"/api/token/{token}", token=alice)
    assert (user["quota"], user["used_quota"]) == (100_000 - 105, 105)
    assert (shown["remain_quota"], shown["used_quota"]) == (50_000 - 105, 105)
    assert (await one.call("GET", "/api/channel/1"))["used_quota"] == 105


async def test_the_group_ratio_multiplies_the_price() -> None:
    one = OneAPI()
    await one.channel(group="default,vip")
    await one.call("PUT", "/api/option/", {"key": "GroupRatio", "value": '{"vip": 0.5}'})
    id, alice = await one.user("alice")
    await one.call("PUT", "/api/user/", {"id": id, "group": "vip"})
    _, key = await one.token(alice)
    async with one.app:
        await one.chat(key)
    assert (await one.call("GET", f"/api/user/{id}"))["used_quota"] == 53


async def test_a_used_up_token_is_401_and_a_used_up_user_403() -> None:
    one = OneAPI()
    await one.channel()
    _, alice = await one.user("alice", quota=100_000)
    _, empty = await one.token(alice, unlimited_quota=False, remain_quota=0)
    assert (await one.chat(empty)).status == 401
    _, small = await one.token(alice, unlimited_quota=False, remain_quota=20)
    answer = await one.chat(small)
    assert (answer.status, answer.json["error"]["code"]) == (403, "pre_consume_token_quota_failed")
    _, bob = await one.user("bob", quota=20)
    _, key = await one.token(bob)
    answer = await one.chat(key)
    assert (answer.status, answer.json["error"]["code"]) == (403, "insufficient_user_quota")
    assert one.vendors.requests == []


async def test_a_token_is_restricted_to_its_models_and_networks() -> None:
    one = OneAPI()
    await one.channel(models="gpt-4,gpt-3.5-turbo")
    _, key = await one.token(models="gpt-3.5-turbo")
    assert (await one.chat(key)).status in (403, 503)
    assert (await one.chat(key, model="gpt-3.5-turbo")).status == 200
    _, far = await one.token(subnet="10.0.0.0/8")
    assert (await one.chat(far)).status == 403
    _, near = await one.token(subnet="127.0.0.0/8,10.0.0.0/8")
    assert (await one.chat(near)).status == 200
    await one.fails("POST", "/api/token/", {"name": "n", "subnet": "not-a-network"})


# ── other paths ──────────────────────────────────────────────────────────────


async def test_models_are_those_of_the_callers_channels() -> None:
    one = OneAPI()
    await one.channel(models="gpt-4,gpt-3.5-turbo")
    await one.channel(models="secret-model", group="vip")
    _, key = await one.token()
    listed = await one.answer("GET", "/v1/models", token=f"Bearer {key}")
    assert [m["id"] for m in listed.json["data"]] == ["gpt-4", "gpt-3.5-turbo"]
    model = (await one.answer("GET", "/v1/models/gpt-4", token=f"Bearer {key}")).json
    assert (model["object"], model["root"], model["parent"]) == ("model", "gpt-4", None)
    assert model["permission"][0]["object"] == "model_permission"
    missing = await one.answer("GET", "/v1/models/nothing", token=f"Bearer {key}")
    assert (missing.status, missing.json["error"]["code"]) == (200, "model_not_found")
    assert (await one.answer("GET", "/v1/models", token="")).status == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "gpt-4", "input": "a"}),
        ("/v1/moderations", {"model": "gpt-4", "input": "a"}),
        ("/v1/images/generations", {"model": "gpt-4", "prompt": "a"}),
        ("/v1/audio/speech", {"model": "gpt-4", "input": "a", "voice": "b"}),
    ],
)
async def test_the_relay_paths(path: str, body: dict[str, Any]) -> None:
    one = OneAPI()
    await one.channel()
    _, key = await one.token()
    answer = await one.answer("POST", path, body, f"Bearer {key}")
    assert answer.status == 200, answer.body
    assert one.vendors.last.url.path == path


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/files"), ("GET", "/v1/files/file-1/content"), ("DELETE", "/v1/files/file-1"),
     ("DELETE", "/v1/models/ft-1"), ("GET", "/v1/fine_tuning/jobs")],
)  # fmt: skip
async def test_files_go_to_one_channel(method: str, path: str) -> None:
    one = OneAPI()
    await one.channel(key="sk-first")
    await one.channel(key="sk-second")
    _, key = await one.token()
    for _ in range(3):
        answer = await one.answer(method, path, token=f"Bearer {key}")
        assert answer.status == 200, answer.body
    assert set(one.vendors.keys) == {"sk-first"}
    await one.answer(method, path, token=f"Bearer {key}-2")
    assert one.vendors.keys[-1] == "sk-second"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/edits", 410, "provider_retired"),
        ("POST", "/v1/fine-tunes", 410, "provider_retired"),
        ("GET", "/v1/fine-tunes/ft-1/events", 410, "provider_retired"),
        ("POST", "/v1/nothing", 404, "api_not_found"),
        ("GET", "/other", 404, "api_not_found"),
    ],
)
async def test_what_is_not_served_says_so(method: str, path: str, status: int, code: str) -> None:
    one = OneAPI()
    _, key = await one.token()
    answer = await one.answer(method, path, token=f"Bearer {key}")
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bind_request_body_failed"),
        (b'{"messages": []}', "required_field_missing"),
        (b'{"model": "gpt-4"}', "required_field_missing"),
    ],
)
async def test_an_invalid_request_is_400(body: bytes, code: str) -> None:
    one = OneAPI()
    await one.channel()
    _, key = await one.token()
    answer = await one.answer("POST", "/v1/chat/completions", body, f"Bearer {key}")
    assert (answer.status, answer.json["error"]["type"]) == (400, "one_api_error")
    assert answer.json["error"]["code"] == code


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_billing_answers(prefix: str) -> None:
    one = OneAPI()
    await one.channel()
    _, alice = await one.user("alice", quota=2_000_000)
    _, key = await one.token(alice, unlimited_quota=False, remain_quota=1_000_000)
    async with one.app:
        await one.chat(key)
    bearer = f"Bearer {key}"
    found = await one.answer("GET", f"{prefix}/dashboard/billing/subscription", token=bearer)
    assert found.json["object"] == "billing_subscription"
    assert found.json["hard_limit_usd"] == 2.0
    used = await one.answer("GET", f"{prefix}/dashboard/billing/usage?start_date=x", token=bearer)
    assert used.json == {"object": "list", "total_usage": pytest.approx(105 / 500_000 * 100)}
    _, unlimited = await one.token(alice)
    found = await one.answer("GET", f"{prefix}/dashboard/billing/subscription",
                             token=f"Bearer {unlimited}")  # fmt: skip
    assert found.json["soft_limit_usd"] == 100_000_000
    for key_, value in (
        ("DisplayTokenStatEnabled", "false"),
        ("DisplayInCurrencyEnabled", "false"),
    ):
        await one.call("PUT", "/api/option/", {"key": key_, "value": value})
    found = await one.answer("GET", f"{prefix}/dashboard/billing/subscription", token=bearer)
    assert found.json["hard_limit_usd"] == 2_000_000


async def test_no_secret_is_in_the_store_in_the_clear() -> None:
    one = OneAPI(sealer=Sealer(Sealer.generate()))
    await one.channel(key="sk-very-secret-vendor-key")
    _, key = await one.token()
    (code,) = await one.call("POST", "/api/redemption/", {"name": "n", "count": 1, "quota": 5})
    assert (await one.chat(key)).status == 200
    stored = json.dumps({t: {k: v.decode("latin-1") for k, v in rows.items()}
                         for t, rows in one.store._tables.items()})  # fmt: skip
    for secret in ("sk-very-secret-vendor-key", key.removeprefix("sk-")[10:], code, "password-1"):
        assert secret not in stored


async def test_a_callers_credentials_do_not_reach_the_vendor() -> None:
    one = OneAPI()
    await one.channel()
    _, key = await one.token()
    await one.answer(
        "POST", "/v1/chat/completions",
        {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]},
        f"Bearer {key}", cookie="session=abc", **{"x-api-key": "other"},
    )  # fmt: skip
    assert "cookie" not in one.vendors.last.headers
    assert "x-api-key" not in one.vendors.last.headers
    assert key not in str(one.vendors.last.headers)
    assert Step is not None


async def test_two_workers_over_redis_are_one_gateway(redis_url: str) -> None:
    sealer = Sealer(Sealer.generate())
    prefix = f"test-{uuid.uuid4().hex}"
    async with RedisStore(redis_url, prefix=prefix) as store:
        one = OneAPI(store=store, sealer=sealer)
        async with RedisStore(redis_url, prefix=prefix) as other_store, one.app:
            two = OneAPI(one.vendors, other_store, sealer=sealer)
            async with two.app:
                await one.channel()
                id, alice = await one.user("alice", quota=100_000)
                _, key = await one.token(alice)
                await two.app._channels.refresh(force=True)  # (a change arrives within a second)
                assert (await two.chat(key)).status == 200
                session = await one.login("alice", "password-1")
                me = await two.answer("GET", "/api/user/self", token="", cookie=session)
                assert me.json["data"]["id"] == id
                (code,) = await two.call(
                    "POST", "/api/redemption/", {"name": "n", "count": 1, "quota": 50}
                )
                answers = await asyncio.gather(
                    *(app.answer("POST", "/api/user/topup", {"key": code}, alice)
                      for app in (one, two) for _ in range(5))
                )  # fmt: skip
                assert any(answer.json["success"] for answer in answers)
        shown = await OneAPI(one.vendors, store, sealer=sealer).call("GET", f"/api/user/{id}")
        assert shown["quota"] == 100_050 - shown["used_quota"]
        assert shown["used_quota"] > 0
