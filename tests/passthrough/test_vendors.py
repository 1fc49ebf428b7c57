"""A vendor's API through the proxy: headers in both directions, keys, usage records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import (
    ConfigurationError,
    InjectKey,
    Key,
    KeyPool,
    PassthroughProxy,
    Principal,
    UsageRecord,
)
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, azure
from asgi_aiproxy.providers.base import Provider
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, chat_answer, refuses, streams

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI = {"model": "gpt-x", "messages": [{"role": "user", "content": "Hi"}]}
TOKEN = "gateway-token-of-ada"


class Place:
    """A proxy to a scripted provider, with its pool and its usage records."""

    def __init__(
        self,
        *steps: Step | Exception,
        row: Provider = OPENAI,
        keys: Any = ("sk-1", "sk-2", "sk-3"),
        **options: Any,
    ) -> None:
        self.upstream = Upstream(*(steps or (answers(),)))
        self.pool = keys if isinstance(keys, KeyPool) else KeyPool([Key(k, id=k) for k in keys])
        self.records: list[UsageRecord] = []
        self.app = PassthroughProxy(
            row.using(self.pool),
            transport=self.upstream.transport,
            record=self._record,
            **options,
        )

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def ask(
        self, method: str, path: str, body: Any = b"", who: Principal | None = None, **headers: str
    ) -> asgi.Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data and not isinstance(body, bytes):
            named.setdefault("content-type", "application/json")
        if data:
            named.setdefault("content-length", str(len(data)))
        more = {SCOPE_KEY: who} if who is not None else {}
        return await asgi.request(self.app, method, path, data, headers=named, **more)

    async def record(self) -> UsageRecord:
        """Return the only record; no key is in use any more."""
        await self.app._recorder.drain()
        assert len(self.records) == 1, self.records
        assert {key.in_flight for key in await self.pool.status()} <= {0}
        return self.records[0]

    @property
    def sent(self) -> Any:
        """The headers of the only request."""
        (request,) = self.upstream.requests
        return request.headers


# ── what the vendor receives ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "path", "header", "value"),
    [
        (OPENAI, "/v1/files", "authorization", "Bearer sk-1"),
        (ANTHROPIC, "/v1/files", "x-api-key", "sk-1"),
        (GEMINI, "/v1beta/files", "x-goog-api-key", "sk-1"),
        (azure("https://r.openai.azure.com"), "/openai/v1/files", "api-key", "sk-1"),
    ],
    ids=["openai", "anthropic", "gemini", "azure"],
)
async def test_each_vendor_gets_the_key_where_it_expects_it(
    row: Provider, path: str, header: str, value: str
) -> None:
    place = Place(row=row, keys=["sk-1"])
    answer = await place.ask("GET", path, authorization=f"Bearer {TOKEN}", x_api_key=TOKEN)
    assert answer.status == 200
    assert place.sent[header] == value
    credentials = {"authorization", "x-api-key", "x-goog-api-key", "api-key"}
    assert credentials & set(place.sent) == {header}


async def test_a_callers_credential_is_removed_from_all_places() -> None:
    place = Place()
    await place.ask(
        "GET",
        f"/v1/files?key={TOKEN}&limit=3&x=a%20b&token={TOKEN}&after=%2F",
        authorization=f"Bearer {TOKEN}",
        x_goog_api_key=TOKEN,
        x_debug=f"asked with {TOKEN}!",
        x_other="stays",
        proxy_authorization=f"Basic {TOKEN}",
    )
    (request,) = place.upstream.requests
    assert TOKEN not in str(request.url) + str(request.headers)
    assert request.url.query == b"limit=3&x=a%20b&after=%2F"
    assert request.headers["x-other"] == "stays"


async def test_a_short_token_does_not_remove_other_headers() -> None:
    place = Place()
    await place.ask("GET", "/v1/files", authorization="Bearer a", accept="application/json")
    assert place.sent["accept"] == "application/json"


async def test_the_hosts_headers_are_not_sent_to_a_vendor() -> None:
    place = Place()
    secret = {
        "cookie": "session=1",
        "origin": "https://host.example",
        "referer": "https://host.example/page",
        "x-forwarded-for": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "x-real-ip": "10.0.0.1",
        "cf-connecting-ip": "10.0.0.1",
        "x-auth-id": "sk-1",
        "x-session-affinity": "abc",
    }
    reported = {"openai-beta": "assistants=v2", "x-stainless-lang": "python", "user-agent": "sdk/1"}
    await place.ask("GET", "/v1/files", **secret, **reported)
    assert not set(secret) & set(place.sent)
    assert {name: place.sent[name] for name in reported} == reported
    assert place.sent["accept-encoding"] == "identity"
    assert not [name for name in place.sent if name.startswith("x-forwarded")]


async def test_the_providers_headers_are_sent_unless_the_caller_may_override_them() -> None:
    row = ANTHROPIC.using(headers={"anthropic-version": "2023-06-01", "X-Team": "ours"})
    place = Place(row=row)
    await place.ask("GET", "/v1/files")
    assert place.sent.get_list("anthropic-version") == ["2023-06-01"]
    place = Place(row=row)
    await place.ask("GET", "/v1/files", anthropic_version="2099-01-01", x_team="theirs")
    assert place.sent.get_list("anthropic-version") == ["2099-01-01"]
    assert place.sent.get_list("x-team") == ["ours"]


async def test_headers_about_the_vendors_own_site_are_not_forwarded() -> None:
    headers = {
        "content-type": "application/json",
        "set-cookie": "__cf_bm=1",
        "strict-transport-security": "max-age=1; includeSubDomains",
        "access-control-allow-origin": "*",
        "alt-svc": 'h3=":443"',
        "x-request-id": "req_1",
        "x-ratelimit-remaining-requests": "9",
        "openai-version": "2020-10-01",
    }
    place = Place(Step([b"{}"], headers=headers))
    answer = await place.ask("GET", "/v1/files")
    names = {name for name, _ in answer.headers}
    assert names == {"content-type", "x-request-id", "x-ratelimit-remaining-requests"} | {
        "openai-version",
        "aiproxy-request-id",
        "aiproxy-key",
        "x-auth-id",
    }


async def test_addresses_of_the_vendors_lead_through_the_proxy() -> None:
    headers = {
        "x-goog-upload-url": "https://generativelanguage.googleapis.com/upload/v1beta/files?id=1",
        "location": "https://elsewhere.example/x",
        "operation-location": "/v1beta/operations/1",
    }
    place = Place(Step([b""], headers=headers), row=GEMINI)
    answer = await asgi.request(
        place.app,
        "POST",
        "/ai/google/upload/v1beta/files",
        root_path="/ai/google",
        headers={"host": "svc.example"},
    )
    assert answer.header("x-goog-upload-url") == (
        "http://svc.example/ai/google/upload/v1beta/files?id=1"
    )
    assert answer.header("location") == "https://elsewhere.example/x"
    assert answer.header("operation-location") == "/ai/google/v1beta/operations/1"


async def test_addresses_lead_through_the_proxy_under_litestar_too() -> None:
    headers = {"location": "https://api.openai.com/v1/files/1"}
    place = Place(Step([b""], status=302, headers=headers))
    scope = asgi.scope_of("GET", "/ai/openai/v1/files", headers={"host": "svc.example"})
    scope["path"] = "/v1/files/"
    async with asgi.Exchange(place.app, scope) as exchange:
        exchange.send_body(b"")
        answer = await exchange.answer()
    assert answer.header("location") == "http://svc.example/ai/openai/v1/files/1"
    assert str(place.upstream.requests[0].url) == "https://api.openai.com/v1/files"


# ── what is open ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "/v1/organization/admin_api_keys",
        "/organization/admin_api_keys",
        "/v1/files/../organization/admin_api_keys",
        "/v1/files/%2e%2e/organization/admin_api_keys",
        "/v1//organization/admin_api_keys",
        "/v1/realtime/client_secrets",
        "/",
    ],
)
async def test_the_account_is_not_reachable_with_the_pools_key(path: str) -> None:
    place = Place()
    answer = await place.ask("POST", path, b"{}")
    assert answer.status in (400, 404)
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert place.upstream.requests == []


async def test_all_paths_are_served_if_configured() -> None:
    place = Place(paths="all")
    assert (await place.ask("GET", "/v1/organization/admin_api_keys")).status == 200
    assert (await place.ask("GET", "/v1/files/%2e%2e/x")).status == 400


async def test_the_served_paths_can_be_configured() -> None:
    place = Place(paths=["GET /organization/usage/**", "/new_thing"])
    assert (await place.ask("GET", "/v1/organization/usage/completions")).status == 200
    assert (await place.ask("POST", "/v1/new_thing")).status == 200
    assert (await place.ask("POST", "/v1/organization/usage/completions")).status == 404
    assert (await place.ask("POST", CHAT, HI)).status == 404


async def test_errors_of_the_proxy_have_the_vendors_format() -> None:
    place = Place(row=ANTHROPIC)
    answer = await place.ask("GET", "/v1/organizations/members")
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "not_found_error"
    place = Place(row=GEMINI)
    answer = await place.ask("GET", "/v1beta/projects")
    assert answer.json["error"]["status"] == "NOT_FOUND"


@pytest.mark.parametrize("model", ["gpt-x", "gpt-y"])
async def test_a_caller_restricted_to_models_gets_those(model: str) -> None:
    who = Principal("ada", models=("gpt-x", "gemini-x"))
    allowed = model == "gpt-x"
    place = Place()
    answer = await place.ask("POST", CHAT, {**HI, "model": model}, who)
    assert answer.status == (200 if allowed else 403)
    assert len(place.upstream.requests) == allowed
    assert (await place.record()).requested_model == model  # a refused one is recorded, too
    place = Place(row=GEMINI)
    path = f"/v1beta/models/{model.replace('gpt', 'gemini')}:generateContent"
    assert (await place.ask("POST", path, b"{}", who)).status == (200 if allowed else 403)


async def test_the_restriction_to_models_applies_to_an_application_as_well() -> None:
    upstream = Upstream(answers())
    app = PassthroughProxy("http://models.internal", transport=upstream.transport)
    headers = {"content-type": "application/json"}
    for model, status in (("gpt-x", 200), ("other", 403)):
        body = json.dumps({**HI, "model": model}).encode()
        who = {SCOPE_KEY: Principal("ada", models=("gpt-*",))}
        answer = await asgi.request(app, "POST", CHAT, body, headers=headers, **who)
        assert answer.status == status
    assert len(upstream.requests) == 1


async def test_a_caller_restricted_to_models_cannot_hide_another_one() -> None:
    who = Principal("ada", models=("gpt-x",))
    place = Place()
    json_type = {"content_type": "application/json"}
    for path, body, headers, status in [
        ("/v1/batches", {"input_file_id": "f"}, {}, 403),
        ("/v1/threads/runs", {}, {}, 403),
        (CHAT, b'{"model": "gpt-x"', json_type, 400),
    ]:
        assert (await place.ask("POST", path, body, who, **headers)).status == status, path
    assert place.upstream.requests == []
    assert (await place.ask("GET", "/v1/models", who=who)).status == 200


async def test_a_caller_restricted_to_other_providers_is_refused() -> None:
    place = Place()
    who = Principal("ada", providers=("anthropic",))
    assert (await place.ask("GET", "/v1/models", who=who)).status == 403
    assert place.upstream.requests == []


# ── keys ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [429, 401, 402])
async def test_after_a_refused_key_the_next_one_is_used(status: int) -> None:
    place = Place(refuses(status), answers())
    answer = await place.ask("POST", CHAT, HI)
    assert answer.body == chat_answer()
    assert place.upstream.keys == ["sk-1", "sk-2"]
    assert place.upstream.bodies == [HI, HI]
    assert answer.header("x-auth-id") == "sk-2"
    health = {key.id: key.health.value for key in await place.pool.status()}
    assert health["sk-1"] == ("cooling" if status == 429 else "quarantined")
    assert health["sk-2"] == "ok"
    record = await place.record()
    assert (record.outcome, record.attempts, record.key_id) == ("done", 2, "sk-2")


async def test_a_key_whose_limit_is_used_up_cools_down_before_it_is_refused() -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    place = Place(Step([chat_answer()], headers=spent), answers())
    for _ in range(5):
        assert (await place.ask("POST", CHAT, HI)).status == 200
    first, *others = place.upstream.keys
    assert first not in others
    status = {key.id: key for key in await place.pool.status()}
    assert 30 < status[str(first)].cooldown_seconds <= 40


async def test_when_all_keys_are_over_their_limit_the_vendors_error_is_forwarded() -> None:
    place = Place(refuses(429, retry_after="7"))
    answer = await place.ask("POST", CHAT, HI)
    assert answer.status == 429
    assert answer.json["error"]["message"] == "no: 429"
    assert answer.header("retry-after") == "7"
    assert sorted(place.upstream.keys) == ["sk-1", "sk-2", "sk-3"]
    assert (await place.record()).outcome == "failed"
    # Now all rest, and the vendor is not asked.
    answer = await place.ask("POST", CHAT, HI)
    assert answer.status == 429
    assert int(answer.header("retry-after") or 0) in (6, 7)
    assert len(place.upstream.requests) == 3


async def test_a_vendor_that_refuses_our_keys_does_not_refuse_the_caller() -> None:
    quoting = b'{"error":{"message":"Incorrect API key provided: sk-3"}}'
    place = Place(refuses(401, quoting))
    answer = await place.ask("GET", "/v1/models")
    assert answer.status == 502
    assert b"sk-" not in answer.body
    record = await place.record()
    assert (record.outcome, record.status) == ("failed", 502)


async def test_a_buffered_response_does_not_contain_the_key() -> None:
    place = Place(
        refuses(429, b'{"error":{"message":"limit of secret-of-key"}}'), keys=["secret-of-key"]
    )
    answer = await place.ask("GET", "/v1/models")
    assert answer.status == 429
    assert b"secret-of-key" not in answer.body
    assert answer.header("content-length") == str(len(answer.body))


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_an_error_that_is_not_about_the_key_is_forwarded_at_once(status: int) -> None:
    place = Place(refuses(status, b"{}", x_request_id="r"))
    answer = await place.ask("POST", CHAT, HI)
    assert (answer.status, answer.body) == (status, b"{}")
    assert answer.header("x-request-id") == "r"
    assert len(place.upstream.requests) == 1
    record = await place.record()
    assert record.outcome == ("failed" if status >= 500 else "refused")
    assert record.status == status


async def test_a_body_that_cannot_be_sent_again_is_sent_once() -> None:
    place = Place(refuses(429), answers(), max_replay=10)
    async with asgi.opened(place.app, "POST", CHAT) as exchange:
        exchange.send_body(b"{" + b" " * 10, more=True)
        exchange.send_body(b"}")
        assert (await exchange.answer()).status == 429
    assert len(place.upstream.requests) == 1


async def test_a_caller_may_select_the_key() -> None:
    place = Place(refuses(429))
    answer = await place.ask("POST", CHAT, HI, x_auth_id="sk-3")
    assert (answer.status, place.upstream.keys) == (429, ["sk-3"])
    assert (await place.ask("POST", CHAT, HI, x_auth_id="nobody")).status == 401
    who = Principal("ada", may_choose_key=False)
    place = Place()
    await place.ask("POST", CHAT, HI, who, x_auth_id="sk-3")
    assert place.upstream.keys == ["sk-1"]
    await place.ask("POST", CHAT, HI, Principal("ben", key_id="sk-2"))
    assert place.upstream.keys == ["sk-1", "sk-2"]


async def test_a_caller_restricted_to_keys_gets_those() -> None:
    place = Place(refuses(429))
    who = Principal("ada", keys=("sk-2", "sk-3"))
    assert (await place.ask("POST", CHAT, HI, who)).status == 429
    assert sorted(place.upstream.keys) == ["sk-2", "sk-3"]


async def test_a_caller_may_bring_its_own_key() -> None:
    place = Place(refuses(401, b'{"e":1}'), allow_client_keys=True)
    answer = await place.ask("POST", CHAT, HI, authorization="Bearer sk-theirs")
    assert place.upstream.keys == ["sk-theirs"]
    assert (answer.status, answer.body) == (401, b'{"e":1}')  # theirs to know
    place = Place(allow_client_keys=True)
    await place.ask("POST", CHAT, HI, Principal("a"), authorization=f"Bearer {TOKEN}")
    await place.ask(
        "POST", CHAT, HI, Principal("a"), authorization=f"Bearer {TOKEN}", x_provider_key="sk-own"
    )
    assert place.upstream.keys == ["sk-1", "sk-own"]
    place = Place()
    await place.ask("POST", CHAT, HI, x_provider_key="sk-own")
    assert place.upstream.keys == ["sk-1"]


async def test_a_key_with_its_own_address_is_used_there() -> None:
    place = Place(keys=KeyPool([Key("sk-1", base_url="https://eu.example/v1")]))
    await place.ask("GET", "/v1/models?limit=1")
    assert str(place.upstream.requests[0].url) == "https://eu.example/v1/models?limit=1"


async def test_a_key_is_chosen_by_the_model() -> None:
    pool = KeyPool([Key("sk-1", models=("gpt-a",)), Key("sk-2", models=("gpt-x",))])
    place = Place(keys=pool)
    await place.ask("POST", CHAT, HI)
    assert place.upstream.keys == ["sk-2"]
    answer = await place.ask("POST", CHAT, {**HI, "model": "gpt-z"})
    assert answer.status == 404


async def test_a_buffered_response_to_head_keeps_its_length() -> None:
    place = Place(Step([b""], 429, {"content-length": "70"}), keys=["sk-1"])
    answer = await place.ask("HEAD", "/v1/models")
    assert (answer.status, answer.header("content-length")) == (429, "70")


async def test_an_injected_key_serves_a_vendor_that_has_none_of_its_own() -> None:
    upstream = Upstream(answers())
    pool = KeyPool(["sk-injected"])
    app = InjectKey(PassthroughProxy(OPENAI, transport=upstream.transport), pool=pool)
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert (await asgi.request(app, "GET", "/v1/models", headers=headers)).status == 200
    assert upstream.keys == ["sk-injected"]
    own = OPENAI.using("sk-own")
    app = InjectKey(PassthroughProxy(own, transport=upstream.transport), pool=pool)
    await asgi.request(app, "GET", "/v1/models", headers=headers)
    assert upstream.requests[-1].headers.get_list("authorization") == ["Bearer sk-own"]


# ── what only one key finds again ────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/file-1", "/v1/batches", "/v1/threads/t"])
async def test_the_same_key_serves_a_callers_resources(path: str) -> None:
    used = set()
    for who in map(Principal, "abcdefgh"):
        place = Place()
        for _ in range(4):
            await place.ask("GET", path, who=who)
        assert len(set(place.upstream.keys)) == 1
        used.add(place.upstream.keys[0])
    assert len(used) > 1  # and others serve others'


@pytest.mark.parametrize(
    ("body", "sticks"),
    [
        (HI, False),
        ({**HI, "messages": [{"content": [{"file": {"file_id": "f"}}]}]}, True),
        ({"previous_response_id": "r"}, True),
    ],
)
async def test_the_same_key_serves_a_resource_named_in_a_body(body: Any, sticks: bool) -> None:
    place = Place()
    for _ in range(6):
        await place.ask("POST", CHAT, body)
    assert (len(set(place.upstream.keys)) == 1) is sticks


@pytest.mark.parametrize(("store", "keys"), [(True, 1), (None, 1), (False, 3)])
async def test_responses_that_are_not_stored_use_all_keys(store: bool | None, keys: int) -> None:
    place = Place()
    body = {"model": "m", "input": "Hi"} | ({} if store is None else {"store": store})
    for _ in range(6):
        await place.ask("POST", "/v1/responses", body)
    assert len(set(place.upstream.keys)) == keys


async def test_an_unknown_resource_is_requested_with_the_other_keys() -> None:
    place = Place(refuses(404), refuses(404), answers())
    answer = await place.ask("GET", "/v1/files/file-1")
    assert answer.status == 200
    assert len(set(place.upstream.keys)) == 3
    assert {key.health.value for key in await place.pool.status()} == {"ok"}


async def test_a_resource_that_no_key_knows_is_a_404() -> None:
    place = Place(refuses(404, b'{"error":{"message":"No such File"}}'))
    answer = await place.ask("GET", "/v1/files/file-1")
    assert (answer.status, answer.json["error"]["message"]) == (404, "No such File")
    assert len(place.upstream.requests) == 3
    assert (await place.record()).outcome == "refused"


async def test_a_resource_that_a_cooling_key_may_hold_is_not_a_404() -> None:
    place = Place(refuses(404))
    (status, *_) = [key for key in await place.pool.status() if key.id == "sk-2"]
    with place.pool.acquire_nowait(key_id=status.id) as lease:
        lease.report(429, 20.0)
    answer = await place.ask("GET", "/v1/files/file-1")
    assert answer.status == 429
    assert int(answer.header("retry-after") or 0) in (19, 20)


async def test_a_resource_of_a_limited_key_is_not_requested_with_another() -> None:
    place = Place(refuses(429))
    answer = await place.ask("POST", "/v1/files", b"x")
    assert answer.status == 429
    assert len(place.upstream.requests) == 1


# ── usage records ────────────────────────────────────────────────────────────


async def test_a_response_has_one_record_with_its_usage() -> None:
    place = Place()
    await place.ask("POST", CHAT, HI, Principal("ada"))
    record = await place.record()
    assert record.usage == Usage(input=3, output=2)
    assert (record.principal, record.provider, record.operation) == (
        "ada",
        "openai",
        "chat/completions",
    )
    assert (record.requested_model, record.model) == ("gpt-x", "gpt-test")
    assert (record.face, record.outcome, record.status) == ("passthrough", "done", 200)
    assert record.first_byte is not None
    assert record.first_byte <= record.duration


async def test_a_stream_has_one_record_with_its_usage() -> None:
    place = Place(streams())
    await place.ask("POST", CHAT, {**HI, "stream": True})
    assert (await place.record()).usage == Usage(input=3, output=2)


async def test_a_stored_response_that_is_read_again_is_not_counted_again() -> None:
    place = Place()
    await place.ask("GET", "/v1/responses/r1")
    assert (await place.record()).usage is None


async def test_usage_counts_against_the_key() -> None:
    place = Place(keys=KeyPool([Key("sk-1", tpm=1)]))
    await place.ask("POST", CHAT, HI)
    assert (await place.ask("POST", CHAT, HI)).status == 429


async def test_a_response_that_breaks_off_has_a_record_and_closes_the_connection() -> None:
    place = Place(streams(b"data: {}\n\n", OSError("gone")))
    async with asgi.opened(place.app, "POST", CHAT) as exchange:
        exchange.send_body(b"{}")
        assert (await exchange.message())["status"] == 200
        assert (await exchange.message())["more_body"]
        with pytest.raises(Exception, match="in the middle"):
            await exchange.ended()
    record = await place.record()
    assert (record.outcome, record.status) == ("failed", 502)
    assert place.upstream.open == 0


async def test_a_request_refused_by_the_gateway_has_a_record_as_well() -> None:
    place = Place()
    await place.ask("POST", CHAT, HI, Principal("ada", models=("other",)))
    record = await place.record()
    assert (record.outcome, record.status, record.attempts) == ("refused", 403, 0)


# ── as an app ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target", [5, None, "ftp://x", "x", "http://", "http://u:p@host", "http://x?y", "http://x#y"]
)
def test_an_invalid_target_is_refused(target: Any) -> None:
    with pytest.raises(ConfigurationError, match="PassthroughProxy"):
        PassthroughProxy(target)


def test_invalid_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="paths="):
        PassthroughProxy("http://x", paths="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="forwarded"):
        PassthroughProxy("http://x", forwarded="maybe")  # type: ignore[arg-type]


async def test_it_answers_lifespan_and_ignores_unknown_scopes() -> None:
    place = Place()
    async with asgi.lifespan(place.app):
        await place.ask("POST", CHAT, HI)
    assert len(place.records) == 1
    async with asgi.Exchange(place.app, {"type": "mystery"}) as exchange:
        await exchange.ended()


def test_its_repr_has_no_secret() -> None:
    assert "sk-1" not in repr(PassthroughProxy(OPENAI.using("sk-1")))
    assert "http" not in repr(PassthroughProxy("http://internal:9000"))
