"""Credentials that expire, shared by workers over a real store."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from asgi_aiproxy import (
    APIError,
    ConfigurationError,
    KeyPool,
    MemoryStore,
    OpenAIShim,
    ProviderRouter,
    RedisStore,
)
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.providers import COZE, OPENAI, Credential, CredentialCache, bedrock, vertex
from asgi_aiproxy.providers.aws_credentials import AWSCredentials
from asgi_aiproxy.providers.coze_credentials import CozeCredentials
from asgi_aiproxy.stores import Store
from asgi_aiproxy.stores.base import StoreUnavailableError
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses
from tests.support.waiting import until

pytestmark = pytest.mark.anyio
SEALING = Sealer.generate()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Source:
    """A source with numbered credentials that are valid for an hour; `gate` delays a fetch."""

    name = "Acme"

    def __init__(self) -> None:
        self.now = 1000.0
        self.count = 0
        self.states: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def applies(self, secret: str) -> bool:
        return secret.startswith("role:")

    def fetch(self, secret: str) -> Credential:
        return self.renew(secret, "")

    def renew(self, secret: str, state: str) -> Credential:
        self.count += 1
        self.states.append(state)
        number = self.count
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return Credential(f"token-{number}", self.now + 3600, f"refresh-{number}")


class Workers:
    """Caches that share only a store, as in processes of their own."""

    def __init__(self, url: str, source: Any, count: int = 2) -> None:
        prefix = uuid.uuid4().hex
        self.stores = [RedisStore(url, prefix=prefix) for _ in range(count)]
        self.source = source
        self.caches = [
            CredentialCache(source, store=store, sealer=Sealer(SEALING), clock=lambda: source.now)
            for store in self.stores
        ]

    async def __aenter__(self) -> Workers:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for store in self.stores:
            await store.aclose()

    async def all(self, calls: int = 10) -> set[str]:
        found = await asyncio.gather(
            *(cache.current("role:a") for cache in self.caches for _ in range(calls))
        )
        return set(found)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def workers(redis_url: str, source: Source) -> AsyncIterator[Workers]:
    async with Workers(redis_url, source, 3) as made:
        yield made


async def test_all_callers_in_all_workers_wait_for_one_fetch(
    source: Source, workers: Workers
) -> None:
    assert await workers.all() == {"token-1"}
    assert source.count == 1


async def test_a_worker_that_starts_later_finds_the_credential(
    source: Source, workers: Workers
) -> None:
    first, second, _ = workers.caches
    assert await first.current("role:a") == await second.current("role:a") == "token-1"
    assert source.count == 1


async def test_a_credential_is_renewed_once_before_it_ends_with_the_last_state(
    source: Source, workers: Workers
) -> None:
    await workers.all()
    source.now += 3400  # 200 seconds before the end
    source.gate.clear()
    assert await workers.all() == {"token-1"}  # meanwhile all go on with the old one
    source.gate.set()

    async def renewed(cache: CredentialCache) -> bool:
        source.now += 6  # after a failed attempt, such as while another worker renews: one more
        return await cache.current("role:a") == "token-2"

    for cache in workers.caches:
        await until(partial(renewed, cache))
    assert source.count == 2
    assert source.states == ["", "refresh-1"]


async def test_a_restarted_worker_renews_with_the_state_in_the_store(
    redis_url: str, source: Source, workers: Workers
) -> None:
    await workers.caches[0].current("role:a")
    source.now += 9999  # long after the end
    assert await workers.caches[1].current("role:a") == "token-2"
    assert source.states == ["", "refresh-1"]


async def test_a_failure_is_not_repeated_by_each_worker_and_keeps_the_state(
    source: Source, workers: Workers
) -> None:
    await workers.all()
    source.now += 9999
    source.error = PermissionError("role:a is not yours")
    for cache in workers.caches:
        with pytest.raises(APIError, match="could not get a credential from Acme") as caught:
            await cache.current("role:a")
        assert caught.value.code == "credential_unavailable"
    assert source.count == 2
    source.error = None
    source.now += 6
    assert await workers.all() == {"token-3"}
    assert source.states == ["", "refresh-1", "refresh-1"]


async def test_a_failure_to_renew_leaves_a_valid_credential_to_new_workers(
    source: Source, workers: Workers
) -> None:
    await workers.caches[0].current("role:a")
    source.now += 3400
    source.error = OSError("no route")
    assert [await cache.current("role:a") for cache in workers.caches] == ["token-1"] * 3


async def test_workers_share_again_after_one_died_within_a_fetch(
    source: Source, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_aiproxy.providers.shared_credentials._LEASE_SECONDS", 0.2)
    source.gate.clear()
    dead = asyncio.create_task(workers.caches[0].current("role:a"))
    await until(lambda: source.count == 1)
    alive = asyncio.create_task(workers.caches[1].current("role:a"))
    await until(lambda: source.count == 2)  # the slot of the first one has expired
    source.gate.set()
    assert {await alive, await dead} <= {"token-1", "token-2"}


async def test_without_the_store_each_worker_fetches_for_itself(source: Source) -> None:
    class Down(MemoryStore):
        async def get(self, table: str, key: str) -> bytes | None:
            raise StoreUnavailableError("down")

    caches = [CredentialCache(source, store=Down(), clock=lambda: source.now) for _ in range(2)]
    assert [await cache.current("role:a") for cache in caches] == ["token-1", "token-2"]


async def test_credentials_are_encrypted_in_the_store(redis_url: str, source: Source) -> None:
    store = RedisStore(redis_url, prefix=uuid.uuid4().hex)
    async with store:
        cache = CredentialCache(
            source, store=store, sealer=Sealer(SEALING), clock=lambda: source.now
        )
        await cache.current("role:a")
        ((name, row),) = (await store.rows("credentials")).items()
        assert b"token-1" not in row
        assert b"refresh" not in row
        assert "role:a" not in name
        other = CredentialCache(
            source, store=store, sealer=Sealer(Sealer.generate()), clock=lambda: source.now
        )
        assert await other.current("role:a") == "token-2"  # it cannot read the first
        with pytest.raises(ConfigurationError, match="sealer"):
            CredentialCache(source, store=store)


async def test_pools_that_share_keys_share_credentials(redis_url: str) -> None:
    """Two gateways over one store, each with its own provider: nothing else is to be set."""
    source = Source()
    origin = OPENAI.using("unused", credentials=CredentialCache(source, clock=lambda: source.now))
    prefix = uuid.uuid4().hex
    upstream = Upstream(answers())
    for _ in range(2):
        store = RedisStore(redis_url, prefix=prefix)
        pool = KeyPool(["role:a"], name="acme", store=store, sealer=Sealer(SEALING))
        app = OpenAIShim(origin.using(pool), transport=upstream.transport)
        async with store, pool:
            assert (await asgi.chat(app)).status == 200
    assert upstream.keys == ["token-1", "token-1"]
    assert source.count == 1


async def test_a_failure_cools_the_key_down_and_the_next_target_serves(redis_url: str) -> None:
    source = Source()
    source.error = OSError("no route")
    origin = OPENAI.using("unused", credentials=CredentialCache(source, clock=lambda: source.now))
    store = RedisStore(redis_url, prefix=uuid.uuid4().hex)
    pool = KeyPool(["role:a"], name="acme", store=store, sealer=Sealer(SEALING))
    upstream = Upstream(answers())
    router = ProviderRouter({"*": [origin.using(pool), OPENAI.using("sk-2", name="second")]})
    async with store, pool:
        answer = await asgi.chat(OpenAIShim(router, transport=upstream.transport))
        assert answer.status == 200
        assert answer.header("aiproxy-provider") == "second"
        assert (await pool.status())[0].health != "healthy"


async def test_a_callers_own_key_never_names_an_identity_of_the_gateway(tmp_path: Path) -> None:
    account = tmp_path / "account.json"
    account.write_text("{}")
    for provider in (vertex("p"), bedrock("eu-west-1"), COZE):
        for own in ("application-default", "credential-chain", "profile:x", str(account)):
            upstream = Upstream(refuses(401))
            app = OpenAIShim(
                provider.using("sk-gateway"), transport=upstream.transport, allow_client_keys=True
            )
            answer = await asgi.chat(app, headers={"aiproxy-provider-key": own})
            assert answer.status == 401
            sent = upstream.requests[0].headers["authorization"]
            assert sent == f"Bearer {own}" or "Credential=profile/" in sent


# ── Coze ─────────────────────────────────────────────────────────────────────


class CozeTokens:
    """Coze's token endpoint: checks the assertion, and refresh tokens that are valid once."""

    def __init__(self) -> None:
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self.issued = 0
        self.valid_refresh = "first"
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        assert (scope["method"], scope["path"]) == ("POST", "/api/permission/oauth2/token")
        body = json.loads((await receive())["body"])
        bearer = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
        self.seen.append(body)
        status, answer = 200, self._answer(body, bearer, scope)
        if "error_code" in answer:
            status = 401
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _answer(self, body: dict[str, Any], bearer: str, scope: Any) -> dict[str, Any]:
        if body["grant_type"] == "refresh_token":
            if body["refresh_token"] != self.valid_refresh or bearer != "app-secret":
                return {"error_code": "invalid_grant", "error_message": body["refresh_token"]}
            self.valid_refresh = f"refresh-{self.issued + 1}"
        else:
            assert jwt.get_unverified_header(bearer)["kid"] == "kid-1"
            host = dict(scope["headers"])[b"host"].decode()
            claims = jwt.decode(bearer, self.public, algorithms=["RS256"], audience=host)
            assert claims["iss"] == "app-1"
            assert claims["jti"]
        self.issued += 1
        out = {"access_token": f"at-{self.issued}", "expires_in": 4_000_000_000}
        if body["grant_type"] == "refresh_token":
            out["refresh_token"] = self.valid_refresh
        return out

    def service_app(self, base: str) -> str:
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return json.dumps(
            {
                "client_type": "jwt",
                "client_id": "app-1",
                "public_key_id": "kid-1",
                "private_key": pem.decode(),
                "coze_api_base": base,
            }
        )


def refresh_app(base: str, token: str = "first") -> str:
    return json.dumps(
        {
            "client_type": "web",
            "client_id": "app-1",
            "client_secret": "app-secret",
            "refresh_token": token,
            "coze_api_base": base,
        }
    )


COZE_STREAM = (
    b'event:conversation.message.completed\ndata:{"id":"1","conversation_id":"2","chat_id":"3",'
    b'"type":"answer","role":"assistant","content":"Hello","content_type":"text"}\n\n'
    b'event:conversation.chat.completed\ndata:{"id":"3","conversation_id":"2","status":"completed",'
    b'"usage":{"input_count":1,"output_count":2,"token_count":3}}\n\nevent:done\ndata:"[DONE]"\n\n'
)


async def test_a_service_app_of_coze_gets_an_access_token(tmp_path: Path) -> None:
    tokens = CozeTokens()
    async with serve(tokens) as url:
        path = tmp_path / "app.json"
        path.write_text(tokens.service_app(url))
        for number, key in enumerate((tokens.service_app(url), str(path)), 1):
            upstream = Upstream(answers(COZE_STREAM))
            upstream.steps[0].headers = {"content-type": "text/event-stream"}  # type: ignore[union-attr]
            app = OpenAIShim(COZE.using(key), transport=upstream.transport)
            assert (await asgi.chat(app, model="7379462189365198898")).status == 200
            assert upstream.requests[0].headers["authorization"] == f"Bearer at-{number}"
    assert tokens.seen[0]["duration_seconds"] == 3600


async def test_a_refresh_token_is_replaced_by_the_next_one_in_all_workers(redis_url: str) -> None:
    tokens = CozeTokens()

    class Clocked(CozeCredentials):
        now = 1000.0

        def renew(self, secret: str, state: str) -> Credential:
            found = super().renew(secret, state)
            return Credential(found.secret, self.now + 900, found.state)

    source = Clocked()
    async with serve(tokens) as url, Workers(redis_url, source) as workers:
        app = refresh_app(url)
        one, other = workers.caches
        assert await one.current(app) == await other.current(app) == "at-1"
        source.now += 1000
        assert await other.current(app) == "at-2"
        source.now += 1000
        assert await one.current(app) == "at-3"
        assert await other.current(app) == "at-3"
        # The operator may replace a refresh token: a new key is a new credential.
        tokens.valid_refresh = "second"
        assert await one.current(refresh_app(url, "second")) == "at-4"
    assert [seen["refresh_token"] for seen in tokens.seen] == [
        "first",
        "refresh-1",
        "refresh-2",
        "second",
    ]


async def test_a_refused_app_of_coze_is_a_named_failure_without_its_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens = CozeTokens()
    async with serve(tokens) as url:
        upstream = Upstream()
        app = OpenAIShim(COZE.using(refresh_app(url, "stale-token")), transport=upstream.transport)
        answer = await asgi.chat(app, model="1")
        assert answer.status == 502
        assert answer.json["error"]["code"] == "credential_unavailable"
        incomplete = OpenAIShim(COZE.using('{"client_type": "jwt"}'), transport=upstream.transport)
        assert (await asgi.chat(incomplete, model="1")).status == 502
    assert "invalid_grant" in caplog.text
    assert "client_id" in caplog.text
    assert "stale-token" not in caplog.text + answer.body.decode()
    assert "app-secret" not in caplog.text + answer.body.decode()


# ── AWS ──────────────────────────────────────────────────────────────────────


async def test_a_role_is_assumed_once_for_all_workers(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assumed: list[str] = []

    async def sts(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        assumed.append(parse_qs((await receive())["body"].decode())["RoleArn"][0])
        body = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleResult><AssumedRoleUser><Arn>a</Arn><AssumedRoleId>b</AssumedRoleId>"
            "</AssumedRoleUser><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>"
            "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
            "<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>"
            "</AssumeRoleResponse>"
        )
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-type", b"text/xml")]})
        await send({"type": "http.response.body", "body": body.encode()})

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text(
        "[profile team]\nrole_arn = arn:aws:iam::1:role/team\nsource_profile = base\n"
        "region = eu-west-1\n[profile base]\naws_access_key_id = AKID\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    prefix = uuid.uuid4().hex
    async with serve(sts) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        stores: list[Store] = [RedisStore(redis_url, prefix=prefix) for _ in range(2)]
        found = [
            await CredentialCache(AWSCredentials(), store=store, sealer=Sealer(SEALING)).current(
                "profile:team"
            )
            for store in stores
        ]
        for store in stores:
            await store.aclose()
    assert found == ["ASIAROLE:s:t"] * 2
    assert assumed == ["arn:aws:iam::1:role/team"]
