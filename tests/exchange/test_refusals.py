"""The scope of vendors' refusals, and its consequences, in shim and proxy alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import (
    Key,
    KeyPool,
    OpenAIShim,
    PassthroughProxy,
    ProviderRouter,
    UsageRecord as Record,
)
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT
from asgi_aiproxy.errors import ErrorKind, RefusalScope
from asgi_aiproxy.exchange.error_mapping import error_from_response
from asgi_aiproxy.keys import Health
from asgi_aiproxy.providers import (
    ANTHROPIC,
    BASETEN,
    CEREBRAS,
    DASHSCOPE,
    DEEPSEEK,
    FEATHERLESS,
    FIREWORKS,
    GEMINI,
    GITHUB,
    GROQ,
    HUGGINGFACE,
    HUNYUAN,
    MISTRAL,
    MOONSHOT,
    NOVITA,
    OLLAMA,
    OPENAI,
    OPENROUTER,
    PERPLEXITY,
    QIANFAN,
    SAMBANOVA,
    SILICONFLOW,
    SPARK,
    STEPFUN,
    TGI,
    TOGETHER,
    VERCEL,
    VOLCENGINE,
    VOYAGE,
    XAI,
    ZAI,
    azure,
    cloudflare,
    databricks,
    openai_compatible,
)
from asgi_aiproxy.providers.base import Provider
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses

pytestmark = pytest.mark.anyio

AZURE = azure("https://r.openai.azure.com")
COMPATIBLE = openai_compatible("http://127.0.0.1:8000/v1")
MODEL, KEY, ACCOUNT = RefusalScope.MODEL, RefusalScope.KEY, RefusalScope.ACCOUNT
REQUEST, UNCLEAR, VENDOR = RefusalScope.REQUEST, RefusalScope.UNCLEAR, RefusalScope.VENDOR
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def error(message: str = "no", **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, **members}}


def of_anthropic(type: str, message: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


def of_google(code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": "no", "status": status, "details": list(details)}}


def reason(word: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word}


def quota(*ids: str) -> dict[str, Any]:
    violations = [{"quotaId": id} for id in ids]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


PER_MODEL = "GenerateRequestsPerMinutePerProjectPerModel"
INVALID = "invalid_request_error"
CREDIT = "Your credit balance is too low to access the Anthropic API."
ROWS: list[tuple[Provider, int, Any, RefusalScope, ErrorKind]] = [
    # https://platform.openai.com/docs/guides/error-codes
    (OPENAI, 429, error(type="tokens", code="rate_limit_exceeded"), MODEL, ErrorKind.LIMITED),
    (OPENAI, 429, error(type="insufficient_quota", code=None), ACCOUNT, ErrorKind.LIMITED),
    (OPENAI, 429, error(code="insufficient_quota"), ACCOUNT, ErrorKind.LIMITED),
    (OPENAI, 401, error(code="invalid_api_key"), KEY, ErrorKind.KEY_REJECTED),
    (OPENAI, 401, error(code="account_deactivated"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (OPENAI, 400, error(code="billing_hard_limit_reached"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (OPENAI, 429, error(code="billing_not_active"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (OPENAI, 429, error(type="insufficient_quota", code="project_spend_limit_exceeded"), KEY,
     ErrorKind.LIMITED),
    (OPENAI, 429, error(code="organization_spend_limit_exceeded"), ACCOUNT, ErrorKind.LIMITED),
    (OPENAI, 404, error(code="model_not_found", param=None), MODEL, ErrorKind.NOT_FOUND),
    (OPENAI, 403, error(code="model_not_found"), MODEL, ErrorKind.KEY_REJECTED),
    (OPENAI, 403, error(code="unsupported_country_region_territory"), VENDOR, ErrorKind.UPSTREAM),
    (OPENAI, 403, error("Your organization must be verified."), MODEL, ErrorKind.KEY_REJECTED),
    (OPENAI, 400, error(param="reasoning.summary", code="x"), REQUEST, ErrorKind.INVALID),
    (OPENAI, 400, error("-1 is less than the minimum of 1 - 'messages'"), REQUEST, ErrorKind.INVALID),  # noqa: E501
    (OPENAI, 400, error("Your account is not what it was."), UNCLEAR, ErrorKind.INVALID),
    (OPENAI, 404, error("no such path"), REQUEST, ErrorKind.NOT_FOUND),
    (OPENAI, 413, error("too large"), REQUEST, ErrorKind.TOO_LARGE),
    (OPENAI, 500, error(type="server_error"), VENDOR, ErrorKind.UPSTREAM),
    # https://learn.microsoft.com/azure/ai-foundry/openai/reference
    (AZURE, 401, error(code="401"), KEY, ErrorKind.KEY_REJECTED),
    (AZURE, 404, error(code="DeploymentNotFound"), MODEL, ErrorKind.NOT_FOUND),
    (AZURE, 400, error(code="content_filter", param="prompt"), REQUEST, ErrorKind.INVALID),
    (AZURE, 400, error(innererror={"code": "ResponsibleAIPolicyViolation"}), REQUEST, ErrorKind.INVALID),  # noqa: E501
    (AZURE, 429, error(code="429"), MODEL, ErrorKind.LIMITED),
    # https://docs.claude.com/en/api/errors
    (ANTHROPIC, 400, of_anthropic(INVALID, CREDIT), UNCLEAR, ErrorKind.INVALID),
    (ANTHROPIC, 400, of_anthropic(INVALID, "max_tokens: no"), REQUEST, ErrorKind.INVALID),
    (ANTHROPIC, 400, of_anthropic(INVALID, "`m` or `model`"), REQUEST, ErrorKind.INVALID),
    (ANTHROPIC, 401, of_anthropic("authentication_error"), KEY, ErrorKind.KEY_REJECTED),
    (ANTHROPIC, 402, of_anthropic("billing_error"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (ANTHROPIC, 403, of_anthropic("permission_error"), MODEL, ErrorKind.KEY_REJECTED),
    (ANTHROPIC, 404, of_anthropic("not_found_error", "model: m"), MODEL, ErrorKind.NOT_FOUND),
    (ANTHROPIC, 413, of_anthropic("request_too_large"), REQUEST, ErrorKind.TOO_LARGE),
    (ANTHROPIC, 429, of_anthropic("rate_limit_error"), MODEL, ErrorKind.LIMITED),
    (ANTHROPIC, 529, of_anthropic("overloaded_error"), VENDOR, ErrorKind.OVERLOADED),
    # https://ai.google.dev/gemini-api/docs/troubleshooting, google/api/error_reason.proto
    (GEMINI, 400, of_google(400, "INVALID_ARGUMENT", reason("API_KEY_INVALID")), KEY,
     ErrorKind.KEY_REJECTED),
    (GEMINI, 403, of_google(403, "PERMISSION_DENIED", reason("SERVICE_DISABLED")), ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (GEMINI, 403, of_google(403, "PERMISSION_DENIED", reason("BILLING_DISABLED")), ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (GEMINI, 403, of_google(403, "PERMISSION_DENIED"), MODEL, ErrorKind.KEY_REJECTED),
    (GEMINI, 400, of_google(400, "FAILED_PRECONDITION"), VENDOR, ErrorKind.UPSTREAM),
    (GEMINI, 404, of_google(404, "NOT_FOUND"), MODEL, ErrorKind.NOT_FOUND),
    (GEMINI, 429, of_google(429, "RESOURCE_EXHAUSTED", quota(PER_MODEL)),
     MODEL, ErrorKind.LIMITED),
    (GEMINI, 429, of_google(429, "RESOURCE_EXHAUSTED", quota("RequestsPerMinutePerProject")), KEY,
     ErrorKind.LIMITED),
    (GEMINI, 400, of_google(400, "INVALID_ARGUMENT", {"fieldViolations": [{"field": "contents"}]}),
     REQUEST, ErrorKind.INVALID),
    # https://console.groq.com/docs/errors
    (GROQ, 413, error(type="tokens", code="rate_limit_exceeded"), MODEL, ErrorKind.TOO_LARGE),
    (GROQ, 400, error(code="organization_restricted", param=""), ACCOUNT, ErrorKind.KEY_REJECTED),
    (GROQ, 498, error(code="capacity_exceeded"), VENDOR, ErrorKind.UPSTREAM),
    # https://openrouter.ai/docs/api/reference/errors-and-debugging
    (OPENROUTER, 402, error(code=402), ACCOUNT, ErrorKind.KEY_REJECTED),
    (OPENROUTER, 402, error(code=402, metadata={"limit_source": "openrouter_key_limit"}), KEY,
     ErrorKind.KEY_REJECTED),
    (OPENROUTER, 403, error(code=403, metadata={"limit_source": "openrouter_workspace_budget"}),
     ACCOUNT, ErrorKind.KEY_REJECTED),
    (OPENROUTER, 403, error(code=403, metadata={"reasons": ["x"], "flagged_input": "y"}), REQUEST,
     ErrorKind.FORBIDDEN),
    (OPENROUTER, 429, error(code=429, metadata={"raw": "z"}), MODEL, ErrorKind.LIMITED),
    # https://api-docs.deepseek.com/quick_start/error_codes
    (DEEPSEEK, 402, error("Insufficient Balance", code="invalid_request_error"), ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (DEEPSEEK, 401, error(type="authentication_error", code="invalid_request_error"), KEY,
     ErrorKind.KEY_REJECTED),
    (XAI, 400, {"code": "invalid-argument", "error": "Incorrect API key provided."}, UNCLEAR,
     ErrorKind.INVALID),
    (XAI, 429, {"code": "resource-exhausted", "error": "no"}, MODEL, ErrorKind.LIMITED),
    (MISTRAL, 401, {"detail": "Invalid API Key"}, KEY, ErrorKind.KEY_REJECTED),
    (MISTRAL, 429, {"object": "error", "message": "no", "type": "rate_limited", "code": "1300"},
     MODEL, ErrorKind.LIMITED),
    (MISTRAL, 400, {"object": "error", "message": "no", "type": "invalid_request_error",
     "param": "model", "code": "unknown_model"}, MODEL, ErrorKind.INVALID),
    (MISTRAL, 429, {"object": "error", "message": "no", "code": "3505"}, VENDOR, ErrorKind.LIMITED),
    (TOGETHER, 402, error(type="credit_limit"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (FIREWORKS, 412, error(code="PRECONDITION_FAILED", type="error"), ACCOUNT, ErrorKind.KEY_REJECTED),  # noqa: E501
    (FIREWORKS, 403, error("Forbidden"), KEY, ErrorKind.KEY_REJECTED),
    (FIREWORKS, 404, error("Model not found, inaccessible, and/or not deployed"), MODEL,
     ErrorKind.NOT_FOUND),
    (PERPLEXITY, 401, error(type="invalid_api_key", code=401), KEY, ErrorKind.KEY_REJECTED),
    (CEREBRAS, 429, {"message": "no", "type": "x", "code": "token_quota_exceeded"}, MODEL,
     ErrorKind.LIMITED),
    (COMPATIBLE, 404, error("The model `m` does not exist.", type="NotFoundError"), REQUEST,
     ErrorKind.NOT_FOUND),
    (OLLAMA, 404, {"error": "model 'm' not found"}, MODEL, ErrorKind.NOT_FOUND),
    (DASHSCOPE, 400, error(code="Arrearage", type="Arrearage"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (DASHSCOPE, 429, error(code="insufficient_quota"), MODEL, ErrorKind.LIMITED),
    (DASHSCOPE, 400, error(code="data_inspection_failed"), REQUEST, ErrorKind.INVALID),
    (ZAI, 429, error(code="1113"), ACCOUNT, ErrorKind.LIMITED),
    (ZAI, 401, error(code="1002"), KEY, ErrorKind.KEY_REJECTED),
    (ZAI, 429, error(code="1302"), MODEL, ErrorKind.LIMITED),
    (ZAI, 400, error(code="1211"), MODEL, ErrorKind.INVALID),
    (MOONSHOT, 429, error(type="exceeded_current_quota_error"), ACCOUNT, ErrorKind.LIMITED),
    (MOONSHOT, 429, error(type="engine_overloaded_error"), VENDOR, ErrorKind.LIMITED),
    (MOONSHOT, 400, error(type="content_filter"), REQUEST, ErrorKind.INVALID),
    (SILICONFLOW, 403, {"code": 30001, "message": "no balance"}, ACCOUNT, ErrorKind.KEY_REJECTED),
    (SILICONFLOW, 403, {"code": 20000, "message": "verify"}, MODEL, ErrorKind.KEY_REJECTED),
    (VOLCENGINE, 429, error(code="ModelAccountTpmRateLimitExceeded", type="TooManyRequests"), MODEL,
     ErrorKind.LIMITED),
    (VOLCENGINE, 403, error(code="AccountOverdueError", type="Forbidden"), ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (QIANFAN, 401, error(code="invalid_model", type="invalid_request_error"), MODEL,
     ErrorKind.KEY_REJECTED),
    (QIANFAN, 400, error("model is empty", code="invalid_model", type=INVALID), REQUEST,
     ErrorKind.INVALID),
    (QIANFAN, 403, error(code="account_overdue", type="access_denied"), ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (QIANFAN, 429, error(code="user_rate_limit_exceeded", type="rate_limit_exceeded"), KEY,
     ErrorKind.LIMITED),
    (QIANFAN, 429, error(code="cluster_rpm_rate_limit_exceeded", type="rate_limit_exceeded"),
     VENDOR, ErrorKind.LIMITED),
    (VOLCENGINE, 400, error(code="InvalidEndpoint.ClosedEndpoint", type="BadRequest"), MODEL,
     ErrorKind.INVALID),
    (VOLCENGINE, 400, error(code="InputTextRiskDetection", type="BadRequest"), REQUEST,
     ErrorKind.INVALID),
    (HUNYUAN, 429, error("concurrency"), KEY, ErrorKind.LIMITED),
    (SPARK, 200, {"code": 11202, "message": "no", "sid": "1"}, MODEL, ErrorKind.UPSTREAM),
    (SPARK, 200, {"code": 10013, "message": "no", "sid": "1"}, REQUEST, ErrorKind.UPSTREAM),
    (SPARK, 401, error(code="11500", type="api_error"), KEY, ErrorKind.KEY_REJECTED),
    (SAMBANOVA, 410, error("removed"), MODEL, ErrorKind.NOT_FOUND),
    (STEPFUN, 451, error(type="content_review"), REQUEST, ErrorKind.INVALID),
    (NOVITA, 403, {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "no"}, ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (NOVITA, 403, {"code": 403, "reason": "model_access_denied", "message": "no"}, MODEL,
     ErrorKind.KEY_REJECTED),
    (FEATHERLESS, 403, error("The model is gated."), MODEL, ErrorKind.KEY_REJECTED),
    (BASETEN, 403, {"error": "no"}, KEY, ErrorKind.KEY_REJECTED),
    (VERCEL, 402, error(type="insufficient_funds"), ACCOUNT, ErrorKind.KEY_REJECTED),
    (HUGGINGFACE, 402, {"error": "no credits"}, ACCOUNT, ErrorKind.KEY_REJECTED),
    (GITHUB, 429, error(code="RateLimitReached"), MODEL, ErrorKind.LIMITED),
    (GITHUB, 413, error(code="tokens_limit_reached"), REQUEST, ErrorKind.TOO_LARGE),
    (cloudflare("a"), 401, {"errors": [{"code": 10000, "message": "no"}], "success": False}, KEY,
     ErrorKind.KEY_REJECTED),
    (cloudflare("a"), 429, {"errors": [{"code": 3036, "message": "no"}]}, ACCOUNT,
     ErrorKind.LIMITED),
    (cloudflare("a"), 403, {"errors": [{"code": 3023, "message": "no"}]}, ACCOUNT,
     ErrorKind.KEY_REJECTED),
    (databricks("a"), 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "no"}, MODEL,
     ErrorKind.NOT_FOUND),
    (VOYAGE, 403, {"detail": "no"}, KEY, ErrorKind.KEY_REJECTED),
    (TGI, 429, {"error": "Model is overloaded", "error_type": "overloaded"}, VENDOR,
     ErrorKind.LIMITED),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "status", "body", "about", "kind"), ROWS)
def test_the_scope_of_a_vendors_refusal_is_classified(
    provider: Provider, status: int, body: Any, about: RefusalScope, kind: ErrorKind
) -> None:
    data = json.dumps(body).encode()
    found = error_from_response(
        provider, status, [], data, now=0.0, native=True, members=CHAT, model="m"
    )
    assert (found.about, found.kind) == (about, kind)


def test_awss_error_types_are_read_from_a_header() -> None:
    for name, about in {
        "UnrecognizedClientException:http://internal.amazon.com/coral/": KEY,
        "ThrottlingException": MODEL,
        "AccessDeniedException": MODEL,
        "ModelNotReadyException": VENDOR,
    }.items():
        headers = [("x-amzn-errortype", name)]
        body = b'{"message":"no"}'
        found = error_from_response(ANTHROPIC, 403, headers, body, now=0.0, native=False, model="m")
        assert found.about is about


def test_a_page_in_html_is_about_the_vendor_and_one_with_a_400_is_unclear() -> None:
    for status, about in {403: VENDOR, 502: VENDOR, 400: UNCLEAR, 401: KEY, 429: MODEL}.items():
        page = b"<html><body>Blocked</body></html>"
        assert (
            error_from_response(OPENAI, status, [], page, now=0.0, native=True, model="m").about
            is about
        )


# ── what follows ─────────────────────────────────────────────────────────────


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """One vendor behind a shim or a proxy, with its pool."""

    def __init__(self, face: str, *steps: Any, keys: Any = ("key-one-1", "key-two-2")) -> None:
        self.clock = Clock()
        self.upstream = Upstream(*steps)
        self.pool = KeyPool([Key(key, id=key) for key in keys], clock=self.clock)
        self.records: list[Record] = []
        provider = OPENAI.using(self.pool)
        app = OpenAIShim if face == "shim" else PassthroughProxy
        options = {"backoff": 0.001} if face == "shim" else {}
        self.app: Any = app(
            provider,  # type: ignore[arg-type]
            transport=self.upstream.transport,
            record=self._record,
            **options,
        )

    async def _record(self, record: Record) -> None:
        self.records.append(record)

    async def ask(self, model: str = "m") -> asgi.Answer:
        body = json.dumps({**CHAT, "model": model}).encode()
        named = {"content-type": "application/json", "content-length": str(len(body))}
        return await asgi.request(self.app, "POST", "/v1/chat/completions", body, headers=named)

    async def record(self) -> Record:
        await self.app._recorder.drain()
        return self.records[-1]


@pytest.fixture(params=["shim", "proxy"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("status", "body", "health"),
    [
        (429, error(code="rate_limit_exceeded"), Health.COOLING),
        (413, error(type="tokens", code="rate_limit_exceeded"), Health.COOLING),
        (429, error(code="insufficient_quota"), Health.COOLING),
        (401, error(code="invalid_api_key"), Health.QUARANTINED),
        (402, error(), Health.QUARANTINED),
        (403, error(code="billing_not_active"), Health.QUARANTINED),
        (400, error(code="organization_restricted"), Health.QUARANTINED),
        (403, error(type="x"), Health.COOLING),
        (404, error(code="model_not_found"), Health.COOLING),
        (400, error("Your credit is gone."), Health.OK),
    ],
)
async def test_another_key_serves_a_request_that_one_key_was_refused(
    face: str, status: int, body: Any, health: Health
) -> None:
    place = Place(face, refuses(status, json.dumps(body).encode()), answers())
    answer = await place.ask()
    assert answer.status == 200
    states = {key.id: key for key in await place.pool.status()}
    assert states["key-one-1"].health is health
    assert states["key-two-2"].health is Health.OK
    record = await place.record()
    assert (record.outcome, record.attempts) == ("done", 2)
    failed, served = record.attempt_details
    assert (failed.provider, failed.key_id, failed.status) == ("openai", "key-one-1", status)
    assert failed.error
    assert failed.code == (body["error"].get("code") or body["error"].get("type") or "")
    assert (served.key_id, served.status, served.error) == ("key-two-2", 200, "")


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
async def test_an_error_about_the_request_costs_one_attempt_and_cools_no_key(
    face: str, status: int
) -> None:
    body = error("messages is wrong", param="messages", code="context_length_exceeded")
    place = Place(face, refuses(status, json.dumps(body).encode()))
    answer = await place.ask()
    assert (answer.status, answer.json) == (status, body)
    assert len(place.upstream.requests) == 1
    assert {key.health for key in await place.pool.status()} == {Health.OK}


async def test_a_limit_of_one_model_does_not_affect_other_models_or_the_model_list(
    face: str,
) -> None:
    limited = refuses(429, json.dumps(error(code="rate_limit_exceeded")).encode(), retry_after="9")
    place = Place(face, limited, answers(), keys=["key-one-1"])
    assert (await place.ask("gpt-a")).status == 429
    assert (await place.ask("gpt-a")).status == 429  # no provider is called
    assert len(place.upstream.requests) == 1
    assert (await place.ask("gpt-b")).status == 200
    assert (await asgi.request(place.app, "GET", "/v1/models")).status == 200


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({}, 30),
        ({"retry_after": "0"}, 0.5),
        ({"retry_after_ms": "0"}, 0.5),
        ({"retry_after": "5"}, 5),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "157680000"}, 86_400),  # five years
        ({"retry_after": "-3"}, 0.5),
    ],
)
async def test_retry_after_is_the_time_until_the_pool_has_a_key_again(
    face: str, reported: dict[str, str], expected: float
) -> None:
    body = json.dumps(error(code="rate_limit_exceeded")).encode()
    place = Place(face, refuses(429, body, **reported), answers(), keys=["key-one-1"])
    answer = await place.ask()
    assert answer.status == 429
    after = int(answer.header("retry-after") or 0)
    assert after == max(1, -(-expected // 1))
    assert answer.header("retry-after-ms") is None
    place.clock.now += expected - 0.01
    assert (await place.ask()).status == 429
    assert len(place.upstream.requests) == 1
    place.clock.now += 0.02
    assert (await place.ask()).status == 200


async def test_retry_after_is_that_of_the_first_key_to_recover(face: str) -> None:
    body = json.dumps(error(code="rate_limit_exceeded")).encode()
    place = Place(face, refuses(429, body, retry_after="5"), refuses(429, body, retry_after="60"))
    answer = await place.ask()
    assert (answer.status, answer.header("retry-after")) == (429, "5")


async def test_a_retry_after_of_zero_doubles_from_the_shortest_cooldown(face: str) -> None:
    limited = refuses(429, json.dumps(error(code="x")).encode(), retry_after="0")
    place = Place(face, limited, keys=["key-one-1"])
    for rest in (0.5, 1, 2, 4):
        await place.ask()
        (state,) = await place.pool.status()
        assert state.cooldown_seconds == pytest.approx(rest)
        place.clock.now += rest


async def test_refused_keys_are_reported_as_refused_while_they_are_quarantined(face: str) -> None:
    place = Place(face, refuses(401), answers(), keys=["key-one-1"])
    first, second = await place.ask(), await place.ask()
    assert (first.status, second.status) == (502, 502)
    assert first.header("retry-after") == second.header("retry-after") == "30"
    assert "1 rejected (401)" in second.json["error"]["message"]
    assert "'openai'" in second.json["error"]["message"]
    assert len(place.upstream.requests) == 1
    place.clock.now += 31
    assert (await place.ask()).status == 200


async def test_an_empty_pool_says_that_it_has_no_keys(face: str) -> None:
    place = Place(face, answers(), keys=[])
    answer = await place.ask()
    assert answer.status == 503
    assert "has no keys" in answer.json["error"]["message"]
    assert place.upstream.requests == []


async def test_a_pool_with_only_disabled_keys_is_reported_as_such(face: str) -> None:
    place = Place(face, answers(), keys=["key-one-1"])
    await place.pool.disable("key-one-1")
    answer = await place.ask()
    assert answer.status == 503
    assert "1 disabled" in answer.json["error"]["message"]


async def test_a_model_that_all_keys_are_refused_cools_none_of_them(face: str) -> None:
    place = Place(face, refuses(404, json.dumps(error(code="model_not_found")).encode()))
    for _ in range(2):
        answer = await place.ask()
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert {key.health for key in await place.pool.status()} == {Health.OK}


async def test_after_an_unclear_refusal_the_client_gets_the_first_providers_error(
    face: str,
) -> None:
    first = json.dumps(error("the first one's words")).encode()
    second = json.dumps(error("the second one's words")).encode()
    place = Place(
        face, refuses(400, first), refuses(400, second), keys=["a-key-1", "a-key-2", "k3"]
    )
    answer = await place.ask()
    assert (answer.status, answer.json["error"]["message"]) == (400, "the first one's words")
    assert len(place.upstream.requests) == 2


async def test_an_unclear_refusal_goes_to_another_vendor_before_another_key() -> None:
    upstream = Upstream(refuses(400, json.dumps(error("no credit")).encode()), answers())
    second = COMPATIBLE.using("key-second")
    router = ProviderRouter({"m": [OPENAI.using(["key-one-1", "key-two-2"]), second]})
    app = OpenAIShim(router, transport=upstream.transport)
    answer = await asgi.chat(app)
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai-compatible")


async def test_a_model_that_one_vendor_lacks_is_requested_from_the_next() -> None:
    missing = refuses(404, json.dumps(error(code="model_not_found")).encode())
    upstream = Upstream(missing, answers())
    router = ProviderRouter({"m": [OPENAI.using("key-one-1"), COMPATIBLE.using("key-second")]})
    answer = await asgi.chat(OpenAIShim(router, transport=upstream.transport))
    assert (answer.status, answer.header("aiproxy-provider")) == (200, "openai-compatible")


async def test_a_target_that_failed_is_logged_as_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = Upstream(refuses(503), answers())
    router = ProviderRouter({"m": [OPENAI.using("key-one-1"), COMPATIBLE.using("key-second")]})
    await asgi.chat(OpenAIShim(router, transport=upstream.transport))
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert any("openai passed over" in line for line in warnings)


async def test_three_failed_attempts_are_three_in_the_record() -> None:
    place = Place("shim", refuses(503), keys=["key-one-1"])
    assert (await place.ask()).status == 503
    record = await place.record()
    assert record.attempts == len(place.upstream.requests) == 3
    assert [(each.status, each.provider) for each in record.attempt_details] == [
        (503, "openai")
    ] * 3
    assert record.outcome == "failed"


async def test_one_successful_attempt_has_no_attempt_details(face: str) -> None:
    place = Place(face, answers())
    await place.ask()
    record = await place.record()
    assert (record.attempts, record.attempt_details) == (1, ())


# How vendors answer a request that is longer than the model's context.
TOO_LONG: list[tuple[Provider, Any]] = [
    (ANTHROPIC, "prompt is too long: 208310 tokens > 200000 maximum"),
    (GEMINI, "The input token count (1200000) exceeds the maximum number of tokens allowed (9)."),
    (OPENAI, {"message": "This is too much.", "code": "context_length_exceeded"}),
    (OPENAI, "Your input exceeds the context window of this model."),
    (COMPATIBLE, "This model's maximum context length is 8192 tokens. However, you requested 9"),
    (COMPATIBLE, "the request exceeds the available context size, try increasing it"),
    (MOONSHOT, "Invalid request: Your request exceeded model token limit: 262144"),
    (ZAI, "Prompt exceeds max length"),
    (DASHSCOPE, "Range of input length should be [1, 129024]"),
    (MISTRAL, "Prompt contains 40 tokens, too large for model with 32 maximum context length"),
]


@pytest.mark.parametrize(("provider", "refusal"), TOO_LONG)
def test_a_request_that_is_too_long_is_refused_in_the_words_that_clients_act_on(
    provider: Provider, refusal: Any
) -> None:
    members = refusal if isinstance(refusal, dict) else {"message": refusal}
    body = json.dumps({"error": {"type": "invalid_request_error", **members}}).encode()
    error = error_from_response(provider, 400, [], body, now=0, native=False)
    assert error.status == 400
    for_openai = json.loads(OPENAI_CHAT.encode_error(error))["error"]
    assert for_openai["code"] == "context_length_exceeded"
    for_anthropic = json.loads(ANTHROPIC_MESSAGES.encode_error(error))["error"]
    assert for_anthropic["type"] == "invalid_request_error"
    assert for_anthropic["message"].startswith("prompt is too long")


@pytest.mark.parametrize(
    "message",
    [
        "Invalid 'max_tokens': the maximum is 8192.",
        "The context of this tool call is missing.",
        "string too long. Expected a string with maximum length 64",
    ],
)
def test_other_refusals_are_not_about_the_length_of_the_context(message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
    assert error_from_response(OPENAI, 400, [], body, now=0, native=False).code is None
