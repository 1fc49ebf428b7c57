"""Credentials that expire: fetched off the loop, before they end, once for all callers."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError, OpenAIShim, PassthroughProxy, ProviderRouter
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.providers import OPENAI, Credential, CredentialCache, bedrock, vertex
from asgi_aiproxy.providers.aws_credentials import AWSCredentials
from asgi_aiproxy.providers.google_credentials import GoogleCredentials
from asgi_aiproxy.services.key_test import check_key
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi
from tests.support.credential_vendors import CONVERSE_ANSWER, GEMINI_ANSWER, service_account
from tests.support.scripted_upstream import Upstream, answers
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Source:
    """A source whose credentials are valid for an hour of its clock, fetched when `gate` opens."""

    name = "Acme"

    def __init__(self) -> None:
        self.now = 1000.0
        self.gate = threading.Event()
        self.gate.set()
        self.fetched: list[tuple[str, threading.Thread]] = []
        self.error: Exception | None = None

    def applies(self, secret: str) -> bool:
        return secret.startswith("role:")

    def fetch(self, secret: str) -> Credential:
        self.fetched.append((secret, threading.current_thread()))
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return Credential(f"token-{len(self.fetched)}", self.now + 3600)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(source: Source) -> CredentialCache:
    return CredentialCache(source, clock=lambda: source.now)


async def test_a_key_that_is_a_secret_is_sent_as_it_is(
    source: Source, cache: CredentialCache
) -> None:
    assert await cache.current("sk-1") == "sk-1"
    assert source.fetched == []


async def test_callers_wait_for_one_fetch_in_another_thread(
    source: Source, cache: CredentialCache
) -> None:
    source.gate.clear()
    callers = [asyncio.create_task(cache.current("role:a")) for _ in range(50)]
    await until(lambda: bool(source.fetched))
    assert not any(caller.done() for caller in callers)  # the loop continues meanwhile
    source.gate.set()
    assert set(await asyncio.gather(*callers)) == {"token-1"}
    ((secret, thread),) = source.fetched
    assert secret == "role:a"
    assert thread is not threading.current_thread()


async def test_each_key_has_a_credential_of_its_own(cache: CredentialCache) -> None:
    assert await cache.current("role:a") != await cache.current("role:b")


async def test_a_credential_is_renewed_before_it_ends_while_the_old_one_is_sent(
    source: Source, cache: CredentialCache
) -> None:
    assert await cache.current("role:a") == "token-1"
    source.now += 3000
    assert await cache.current("role:a") == "token-1"
    assert len(source.fetched) == 1
    source.now += 400  # 200 seconds before the end
    source.gate.clear()
    assert [await cache.current("role:a") for _ in range(20)] == ["token-1"] * 20
    source.gate.set()
    await until(lambda: cache._known["role:a"].secret == "token-2")
    assert await cache.current("role:a") == "token-2"
    assert len(source.fetched) == 2


async def test_a_failure_to_renew_matters_only_when_the_old_one_has_ended(
    source: Source, cache: CredentialCache
) -> None:
    await cache.current("role:a")
    source.error = OSError("no route")
    source.now += 3400
    assert await cache.current("role:a") == "token-1"
    await until(lambda: len(source.fetched) == 2 and not cache._fetching)
    assert await cache.current("role:a") == "token-1"
    source.now += 300
    with pytest.raises(APIError):
        await cache.current("role:a")


async def test_a_failure_is_an_error_of_the_key_and_not_repeated_by_every_caller(
    source: Source, cache: CredentialCache
) -> None:
    source.error = PermissionError("role:a is not yours")
    for _ in range(20):
        with pytest.raises(APIError, match="could not get a credential from Acme") as caught:
            await cache.current("role:a")
        assert caught.value.kind is ErrorKind.KEY_REJECTED
        assert caught.value.code == "credential_unavailable"
        assert "role:a" not in caught.value.message
    assert len(source.fetched) == 1
    source.error = None
    source.now += 6
    assert await cache.current("role:a") == "token-2"


async def test_a_caller_that_leaves_does_not_stop_the_fetch_of_the_others(
    source: Source, cache: CredentialCache
) -> None:
    source.gate.clear()
    leaves, stays = (asyncio.create_task(cache.current("role:a")) for _ in range(2))
    await until(lambda: bool(source.fetched))
    leaves.cancel()
    await asyncio.wait([leaves])
    source.gate.set()
    assert await stays == "token-1"
    assert len(source.fetched) == 1


async def test_event_loops_of_several_threads_share_a_fetch(
    source: Source, cache: CredentialCache
) -> None:
    source.gate.clear()
    found: list[str] = []
    other = threading.Thread(target=lambda: found.append(asyncio.run(cache.current("role:a"))))
    other.start()
    mine = asyncio.create_task(cache.current("role:a"))
    await until(lambda: bool(source.fetched))
    source.gate.set()
    assert await mine == "token-1"
    await asyncio.to_thread(other.join)
    assert found == ["token-1"]
    assert len(source.fetched) == 1


# ── in requests ──────────────────────────────────────────────────────────────


async def test_a_request_carries_the_credential(cache: CredentialCache) -> None:
    upstream = Upstream(answers())
    provider = OPENAI.using("role:a", credentials=cache)
    answer = await asgi.chat(OpenAIShim(provider, transport=upstream.transport))
    assert answer.status == 200
    assert upstream.requests[0].headers["authorization"] == "Bearer token-1"


async def test_the_list_of_models_and_a_key_test_carry_it_too(cache: CredentialCache) -> None:
    upstream = Upstream(answers(b'{"data":[]}'))
    provider = OPENAI.using("role:a", credentials=cache)
    await asgi.request(OpenAIShim(provider, transport=upstream.transport), "GET", "/v1/models")
    keys = provider.keys
    assert keys is not None
    with await keys.acquire() as lease:
        await check_key(provider, lease.key, upstream.transport)
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer token-1"] * 2


async def test_without_a_credential_the_next_key_is_tried(
    source: Source, cache: CredentialCache
) -> None:
    source.error = OSError("no route")
    upstream = Upstream(answers())
    provider = OPENAI.using(["role:a", "sk-2"], credentials=cache)
    app = OpenAIShim(provider, transport=upstream.transport)
    for _ in range(4):
        assert (await asgi.chat(app)).status == 200
    assert {r.headers["authorization"] for r in upstream.requests} == {"Bearer sk-2"}
    assert len(source.fetched) == 1  # the key cools down


async def test_without_a_credential_the_next_provider_is_tried(
    source: Source, cache: CredentialCache
) -> None:
    source.error = OSError("no route")
    upstream = Upstream(answers())
    first = OPENAI.using("role:a", credentials=cache, name="first")
    router = ProviderRouter({"*": [first, OPENAI.using("sk-2")]})
    answer = await asgi.chat(OpenAIShim(router, transport=upstream.transport))
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai")


async def test_the_last_failure_is_named_without_details(
    source: Source, cache: CredentialCache
) -> None:
    source.error = OSError("https://internal.example/token")
    provider = OPENAI.using("role:a", credentials=cache)
    answer = await asgi.chat(OpenAIShim(provider, transport=Upstream().transport))
    assert answer.status == 502
    assert answer.json["error"]["code"] == "credential_unavailable"
    assert b"internal.example" not in answer.body


async def test_a_proxied_request_carries_the_credential_of_a_key_that_has_one(
    source: Source, cache: CredentialCache
) -> None:
    upstream = Upstream(answers())
    provider = OPENAI.using("role:a", credentials=cache)
    proxy = PassthroughProxy(provider, transport=upstream.transport)
    assert (await asgi.request(proxy, "POST", "/chat/completions", {"model": "m"})).status == 200
    assert upstream.requests[0].headers["authorization"] == "Bearer token-1"
    source.error, source.now = OSError("no route"), source.now + 9999
    answer = await asgi.request(proxy, "POST", "/chat/completions", {"model": "m"})
    assert answer.status == 502
    assert len(upstream.requests) == 1


# ── Google ───────────────────────────────────────────────────────────────────


async def token_server(scope: Any, receive: Any, send: Any) -> None:
    """Google's token server: a token for each assertion."""
    if scope["type"] != "http":
        return
    body = json.dumps({"access_token": "ya29.new", "expires_in": 3599, "token_type": "Bearer"})
    await receive()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


async def test_a_service_account_gets_an_access_token(tmp_path: Path) -> None:
    async with serve(token_server) as url:
        text = service_account(f"{url}/token")
        path = tmp_path / "account.json"
        path.write_text(text)
        for key in (text, str(path)):
            upstream = Upstream(answers(GEMINI_ANSWER))
            app = OpenAIShim(vertex("p").using(key), transport=upstream.transport)
            assert (await asgi.chat(app)).status == 200
            assert upstream.requests[0].headers["authorization"] == "Bearer ya29.new"


async def test_application_default_credentials_are_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(token_server) as url:
        path = tmp_path / "account.json"
        path.write_text(service_account(f"{url}/token"))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        found = await CredentialCache(GoogleCredentials()).current("application-default")
    assert found == "ya29.new"


async def test_a_workload_identity_exchanges_its_token(tmp_path: Path) -> None:
    (tmp_path / "subject").write_text("header.payload.signature")
    async with serve(token_server) as url:
        identity = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{url}/v1/token",
            "credential_source": {"file": str(tmp_path / "subject")},
        }
        found = await CredentialCache(GoogleCredentials()).current(json.dumps(identity))
    assert found == "ya29.new"


# ── AWS ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without credentials of AWS, and its configuration file."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return path


async def test_the_credential_chain_signs_requests(
    aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    upstream = Upstream(answers(CONVERSE_ANSWER))
    provider = bedrock("eu-west-1").using("credential-chain")
    assert (await asgi.chat(OpenAIShim(provider, transport=upstream.transport))).status == 200
    headers = upstream.requests[0].headers
    assert "Credential=AKIDENV/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "session"


async def test_a_profile_is_read_from_amazons_files(aws: Path) -> None:
    aws.write_text("[team]\naws_access_key_id = AKIDTEAM\naws_secret_access_key = s\n")
    assert await CredentialCache(AWSCredentials()).current("profile:team") == "AKIDTEAM:s"


async def test_a_chain_without_credentials_is_a_named_failure(aws: Path) -> None:
    with pytest.raises(APIError, match="could not get a credential from AWS"):
        await CredentialCache(AWSCredentials()).current("credential-chain")


def test_without_google_auth_the_configuration_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asgi_aiproxy.providers.google_credentials.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"asgi-aiproxy\[google\]"):
        vertex("p")
