"""The app that settings describe, in use: stores, tokens, budgets, administration."""

from __future__ import annotations

import asyncio
import logging
import os
import tomllib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import AIShim, Authenticate, ConfigurationError
from asgi_aiproxy.config.factory import Gateway
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

ADMIN = "the-token-of-the-administrator"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AIPROXY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def mock() -> MockProvider:
    return MockProvider(Answer(text="Hello"))


@pytest.fixture
async def upstream(mock: MockProvider) -> AsyncIterator[str]:
    async with serve(mock) as url:
        yield url


@pytest.fixture(params=["memory", "file", "redis"])
def store_setting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return ""
    if request.param == "file":
        return f'store_file = "{tmp_path / "state"}"\n'
    url = request.getfixturevalue("redis_url")
    return f'redis_url = "{url}"\nredis_prefix = "test-{uuid.uuid4().hex}"\n'


def gateway(top: str, upstream: str, rest: str = "") -> Gateway:
    text = f"""
{top}
sealing_keys = ["a passphrase that is long enough"]
[providers.openai]
base_url = "{upstream}/v1"
keys = [{{ id = "file", secret = "sk-of-the-file" }}]
{rest}
"""
    app = build(Settings(**tomllib.loads(text)))
    assert isinstance(app, Gateway)
    return app


async def admin(app: Any, method: str, path: str, body: Any = b"") -> Any:
    headers = {"authorization": f"Bearer {ADMIN}"}
    answer = await asgi.request(app, method, "/admin" + path, body, headers=headers)
    assert answer.status < 300, answer.body
    return answer.json


async def chat(app: Any, token: str | None, model: str = "gpt-4o", **body: Any) -> asgi.Answer:
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    return await asgi.chat(app, model=model, max_tokens=100, headers=headers, **body)


async def test_a_token_that_the_admin_issued_works_is_limited_and_is_in_the_ledger(
    store_setting: str, upstream: str
) -> None:
    app = gateway(f'admin_token = "{ADMIN}"\n{store_setting}', upstream)
    async with asgi.lifespan(app):
        issued = await admin(
            app, "POST", "/tokens", {"name": "team", "rpm": 2, "models": ["gpt-*"]}
        )
        token = issued["secret"]
        statuses = [(await chat(app, token)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await chat(app, token, "other")).status == 403
        assert (await chat(app, "sk-unknown-unknown")).status == 401
        assert (await chat(app, None)).status == 401
        headers = {"authorization": f"Bearer {token}"}
        me = (await asgi.request(app, "GET", "/v1/me", headers=headers)).json
        assert (me["name"], me["limits"]["rpm"]) == ("team", {"limit": 2, "used": 2})
        path = "/v1/dashboard/billing/subscription"
        assert (await asgi.request(app, "GET", path, headers=headers)).status == 200
        path = f"/usage?principal={issued['token']['id']}"
        async with asyncio.timeout(60):  # they are written in the background
            while len(records := (await admin(app, "GET", path))["data"]) < 4:
                await asyncio.sleep(0.02)
        outcomes = sorted(record["outcome"] for record in records)
        assert outcomes == ["done", "done", "refused", "refused"]  # a limit, and a model
        assert all(record["cost"] for record in records if record["outcome"] == "done")


async def test_a_budget_of_the_file_is_enforced(
    store_setting: str, upstream: str, mock: MockProvider
) -> None:
    rest = """
[[tokens]]
token = "token-of-team-1"
name = "team-1"
budget_usd = 0.0015
[prices."gpt-*"]
input = 0
output = 10
"""
    app = gateway(store_setting, upstream, rest)
    async with asgi.lifespan(app):
        # An answer may cost $0.001, and costs next to nothing: many fit in, never two at once.
        answers = await asyncio.gather(*(chat(app, "token-of-team-1") for _ in range(8)))
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200] + [429] * 7
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.json["error"]["code"] == "insufficient_quota"
        async with asyncio.timeout(60):  # it is settled in the background
            while (await chat(app, "token-of-team-1")).status != 200:
                await asyncio.sleep(0.02)
    assert len(mock.requests) == 2


async def test_a_budget_in_units_is_spent_by_ratios(upstream: str) -> None:
    rest = "[ratios]\n'gpt-*' = { model = 2, completion = 3 }\n"
    app = gateway(f'admin_token = "{ADMIN}"\n', upstream, rest)
    async with asgi.lifespan(app):
        issued = await admin(app, "POST", "/tokens", {"name": "t", "budgets": [{"units": 5000}]})
        assert (await chat(app, issued["secret"])).status == 200
        path = f"/tokens/{issued['token']['id']}"
        async with asyncio.timeout(60):
            while (found := (await admin(app, "GET", path))["limits"]["budgets"][0])["held"]:
                await asyncio.sleep(0.02)
    assert found["spent"] == 2 * (12 + 3 * 7)  # what the mock says it used


async def sums(app: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await admin(app, "GET", "/usage/sums?by=principal"))["data"]
    return found


async def test_the_number_of_stored_usage_records_is_limited_by_the_setting(upstream: str) -> None:
    app = gateway(f'admin_token = "{ADMIN}"\nledger_max_records = 3\n', upstream)
    async with asgi.lifespan(app):
        issued = await admin(app, "POST", "/tokens", {"name": "t"})
        for _ in range(5):
            await chat(app, issued["secret"])
        async with asyncio.timeout(60):  # they are written in the background
            while sum(one["requests"] for one in await sums(app)) < 5:
                await asyncio.sleep(0.02)
        assert len((await admin(app, "GET", "/usage"))["data"]) == 3


async def test_refused_keys_are_tested_in_the_background_if_configured(
    upstream: str, mock: MockProvider
) -> None:
    mock.script(Fault.status(401))
    text = f"""
[providers.openai]
base_url = "{upstream}/v1"
keys = ["sk-1"]
cooldown = 0.05
health_check_interval = 0.05
"""
    app = built(text)
    async with asgi.lifespan(app):
        assert (await chat(app, None)).status != 200
        async with asyncio.timeout(60):
            while [seen.path for seen in mock.requests][-1] != "/v1/models":
                await asyncio.sleep(0.02)
            while (await chat(app, None)).status != 200:
                await asyncio.sleep(0.02)


async def test_keys_that_the_admin_adds_serve_at_once(
    store_setting: str, upstream: str, mock: MockProvider
) -> None:
    app = gateway(f'admin_token = "{ADMIN}"\n{store_setting}', upstream)
    async with asgi.lifespan(app):
        token = (await admin(app, "POST", "/tokens", {"name": "t"}))["secret"]
        await admin(app, "POST", "/providers/openai/keys", {"id": "new", "secret": "sk-new"})
        await admin(app, "POST", "/providers/openai/keys/file/disable")
        assert (await chat(app, token)).header("x-auth-id") == "new"
        assert mock.requests[-1].headers["authorization"] == "Bearer sk-new"
        tried = await admin(app, "POST", "/providers/openai/keys/new/test")
        assert tried["ok"] is True


async def test_a_provider_without_keys_gets_them_from_the_store(upstream: str) -> None:
    text = f"""
admin_token = "{ADMIN}"
[providers.groq]
base_url = "{upstream}/v1"
keys = []
"""
    app = build(Settings(**tomllib.loads(text)))
    token = (await admin(app, "POST", "/tokens", {"name": "t"}))["secret"]
    assert (await chat(app, token)).status != 200
    await admin(app, "POST", "/providers/groq/keys", {"secret": "sk-new"})
    assert (await chat(app, token)).status == 200


@pytest.mark.parametrize("store_setting", ["file", "redis"], indirect=True)
async def test_issued_tokens_exist_after_a_restart(store_setting: str, upstream: str) -> None:
    top = f'admin_token = "{ADMIN}"\n{store_setting}'
    app = gateway(top, upstream)
    async with asgi.lifespan(app):
        token = (await admin(app, "POST", "/tokens", {"name": "t", "rpm": 3}))["secret"]
        assert (await chat(app, token)).status == 200
    app = gateway(top, upstream)
    async with asgi.lifespan(app):
        statuses = [(await chat(app, token)).status for _ in range(3)]
        assert statuses == [200, 200, 429]


async def test_tokens_of_the_file_and_issued_ones_work_side_by_side(
    store_setting: str, upstream: str
) -> None:
    rest = '[[tokens]]\ntoken = "token-of-the-file"\nname = "file"\nrpm = 1\n'
    app = gateway(f'admin_token = "{ADMIN}"\n{store_setting}', upstream, rest)
    async with asgi.lifespan(app):
        issued = (await admin(app, "POST", "/tokens", {"name": "t"}))["secret"]
        assert [(await chat(app, "token-of-the-file")).status for _ in range(2)] == [200, 429]
        assert [(await chat(app, issued)).status for _ in range(2)] == [200, 200]


async def test_it_works_without_lifespan(store_setting: str, upstream: str) -> None:
    app = gateway(f'admin_token = "{ADMIN}"\n{store_setting}', upstream)
    token = (await admin(app, "POST", "/tokens", {"name": "t", "rpm": 1}))["secret"]
    assert [(await chat(app, token)).status for _ in range(2)] == [200, 429]
    async with app:  # closes what was opened
        pass


async def test_the_admin_api_exists_only_with_an_admin_token(upstream: str) -> None:
    app = gateway('redis_url = "redis://127.0.0.1:9"\n', upstream)
    assert app.admin is None
    assert (await asgi.request(app, "GET", "/admin/health")).status in (401, 404)
    with_it = gateway(f'admin_token = "{ADMIN}"\n', upstream)
    assert (await asgi.request(with_it, "GET", "/admin/health")).status == 200
    assert (await asgi.request(with_it, "GET", "/administration")).status == 401


# ── who may call ─────────────────────────────────────────────────────────────

OPEN = '[providers.openai]\nkeys = ["sk-1"]\n'


def built(text: str) -> Any:
    return build(Settings(**tomllib.loads(text)))


def test_without_a_store_and_tokens_every_request_is_accepted() -> None:
    assert isinstance(built(OPEN), AIShim)


@pytest.mark.parametrize("top", ['redis_url = "redis://localhost"\n', f'admin_token = "{ADMIN}"\n'])
def test_if_tokens_can_be_issued_they_are_required(top: str) -> None:
    assert isinstance(built(top + OPEN).app, Authenticate)
    assert isinstance(built("anonymous = true\n" + top + OPEN).app, AIShim)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('redis_url = "http://x"\n' + OPEN, "redis_url: "),
        ('redis_url = "redis://x"\nstore_file = "x"\n' + OPEN, "store_file: "),
        ('sealing_keys = ["short"]\n' + OPEN, "sealing"),
        ('anonymous = true\n[[tokens]]\ntoken = "t"\nname = "n"\n' + OPEN, "anonymous: "),
        (OPEN + "[prices.m]\ninput = -1", "prices.m: "),
        (OPEN + "[prices.m]\ncolour = 1", "prices.m.colour: "),
        (OPEN + "[ratios]\nm = -1.0", "ratios.m: "),
        (OPEN + "[ratios]\nm = {completion = 1}", "ratios.m: "),
    ],
)
def test_contradicting_settings_are_reported(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        built(text)


@pytest.mark.parametrize("field", ["rpm = 0", "budget_usd = -1", 'networks = ["here"]', "tpm = 0"])
def test_a_tokens_mistakes_are_reported_with_their_place(field: str, tmp_path: Path) -> None:
    from asgi_aiproxy.config.settings import load

    path = tmp_path / "a.toml"
    path.write_text(f'[[tokens]]\ntoken = "t"\nname = "n"\n{field}\n{OPEN}')
    with pytest.raises(ConfigurationError, match=rf"tokens\[0\]\.{field.split()[0]}"):
        load(path)


async def test_a_gateway_starts_refuses_and_recovers_while_redis_is_unavailable(
    upstream: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    rest = '[[tokens]]\ntoken = "token-of-the-file"\nname = "file"\n'
    app = gateway('redis_url = "redis://127.0.0.1:9"\n', upstream, rest)
    async with asgi.lifespan(app):
        assert (await chat(app, "token-of-the-file")).status == 200  # it needs no store
        assert (await chat(app, "sk-issued-maybe-who-knows")).status == 503
