"""Callers that are restricted to models, or have a budget, can use the rest of an API freely."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import InjectKey, KeyPool, PassthroughProxy, Principal
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import SCOPE_KEY, Budget, Limits
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.stores import MemoryStore
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

BOUND = Principal("ada", models=("gpt-4o-mini", "gemini-flash*", "claude-haiku-*"))
RICH = Principal("bob", limits=Limits(budgets=(Budget.usd(1000),)))
PRICES = Prices({"gpt-4o-mini": Price(input=1, output=1)}, listed=False)
BIG = "A" * 1_500_000
CHAT = "/v1/chat/completions"
FORM = "multipart/form-data; boundary=b"


class Place:
    """A proxy for the caller `who`."""

    def __init__(self, row: Provider, who: Principal) -> None:
        self.upstream = Upstream(answers(), answers(), answers())
        proxy = PassthroughProxy(row.using("sk-1"), transport=self.upstream.transport)
        quota = Quota(proxy, store=MemoryStore(), prices=PRICES)
        self.app = Authenticate(quota, identify=lambda scope: who)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        kind: str = "application/json",
        pieces: int = 1,
    ) -> asgi.Answer:
        """The response to a body in `pieces`, without a length if there are several."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": kind}
        if pieces == 1:
            headers["content-length"] = str(len(data))
        step = -(-len(data) // pieces) or 1
        async with asgi.opened(self.app, method, path, headers=headers) as exchange:
            for at in range(0, max(len(data), 1), step):
                exchange.send_body(data[at : at + step], more=at + step < len(data))
            return await exchange.answer()


def form(*fields: tuple[bytes, bytes]) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    return b"".join([head % field for field in fields]) + b"--b--\r\n"


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
@pytest.mark.parametrize("pieces", [1, 2, 30])
@pytest.mark.parametrize("size", [100, 1_500_000])
async def test_a_request_with_an_allowed_model_passes_in_any_format(
    who: Principal, pieces: int, size: int
) -> None:
    body = {"model": "gpt-4o-mini", "max_tokens": 9, "messages": [{"content": "A" * size}]}
    place = Place(OPENAI, who)
    answer = await place.ask("POST", CHAT, body, pieces=pieces)
    assert answer.status == 200, answer.body
    upload = form((b"model", b"gpt-4o-mini"), (b"file", b"A" * size))
    answer = await place.ask("POST", "/v1/images/edits", upload, kind=FORM, pieces=pieces)
    assert answer.status == 200, answer.body
    assert [each.content for each in place.upstream.requests] == [json.dumps(body).encode(), upload]


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
@pytest.mark.parametrize("pieces", [1, 30])
async def test_a_request_for_another_model_is_refused_whatever_its_length(
    who: Principal, pieces: int
) -> None:
    place = Place(OPENAI, who)
    body = {"model": "gpt-dear", "messages": [BIG]}
    assert (await place.ask("POST", CHAT, body, pieces=pieces)).status == 403
    upload = form((b"model", b"gpt-dear"), (b"file", BIG.encode()))
    answer = await place.ask("POST", "/v1/images/edits", upload, kind=FORM, pieces=pieces)
    assert answer.status == 403
    assert place.upstream.requests == []


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
async def test_a_second_model_at_the_end_of_a_long_body_is_refused(who: Principal) -> None:
    body = b'{"model": "gpt-4o-mini", "x": "%b", "model": "gpt-dear"}' % BIG.encode()
    answer = await Place(OPENAI, who).ask("POST", CHAT, body, pieces=30)
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
@pytest.mark.parametrize(
    ("row", "method", "path"),
    [
        (OPENAI, "DELETE", "/v1/files/f"),
        (OPENAI, "POST", "/v1/files"),
        (OPENAI, "POST", "/v1/threads"),
        (OPENAI, "POST", "/v1/threads/thread_1/messages"),
        (OPENAI, "POST", "/v1/vector_stores"),
        (OPENAI, "POST", "/v1/batches/b/cancel"),
        (OPENAI, "POST", "/v1/responses/r/cancel"),
        (ANTHROPIC, "POST", "/v1/files"),
        (ANTHROPIC, "POST", "/v1/messages/batches/b/cancel"),
        (GEMINI, "POST", "/upload/v1beta/files"),
        (GEMINI, "GET", "/v1beta/models"),
    ],
)
async def test_a_request_that_calls_no_model_needs_no_price(
    who: Principal, row: Provider, method: str, path: str
) -> None:
    answer = await Place(row, who).ask(method, path, b"{}")
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
@pytest.mark.parametrize(
    ("row", "path", "body"),
    [
        (OPENAI, "/v1/batches", {"input_file_id": "f", "model": "gpt-4o-mini"}),
        (OPENAI, "/v1/threads/runs", {}),
        (OPENAI, "/v1/threads/thread_1/runs", {}),
        (OPENAI, "/v1/chat/completions/", {}),
        (OPENAI, "/v1/responses", {"previous_response_id": "r"}),
        (GEMINI, "/v1beta/openai/batches", {"model": "gemini-flash-1"}),
    ],
)
async def test_requests_whose_models_cannot_be_read_are_refused_for_restricted_callers(
    who: Principal, row: Provider, path: str, body: Any
) -> None:
    place = Place(row, who)
    assert (await place.ask("POST", path, body)).status == 403
    assert place.upstream.requests == []


async def test_the_error_for_a_caller_with_a_budget_says_how_to_name_the_model() -> None:
    answer = await Place(OPENAI, RICH).ask("POST", "/v1/batches", {"input_file_id": "f"})
    assert "a price for 'openai/'" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("row", "path", "body", "allowed"),
    [
        (GEMINI, "/v1beta/models/gemini-pro%3AgenerateContent", {"model": "gemini-flash-1"}, False),
        (GEMINI, "/v1beta/models/gemini-flash-1%3AgenerateContent", {}, True),
        (GEMINI, "/v1/models/gemini-flash-1%2Fmodels%2Fgemini-pro:generateContent", {}, False),
        (GEMINI, "/v1beta/cachedContents", {"model": "models/gemini-flash-1"}, True),
        (GEMINI, "/v1beta/cachedContents", {"model": "models/gemini-pro"}, False),
        (ANTHROPIC, "/v1/messages/batches", ["claude-haiku-1"], True),
        (ANTHROPIC, "/v1/messages/batches", ["claude-haiku-1", "claude-opus-4"], False),
        (ANTHROPIC, "/v1/messages/batches", [], False),
    ],
)
async def test_a_restricted_caller_gets_its_models_wherever_they_are_named(
    row: Provider, path: str, body: Any, allowed: bool
) -> None:
    if isinstance(body, list):
        body = {"model": "claude-haiku-1", "requests": [{"params": {"model": m}} for m in body]}
    place = Place(row, BOUND)
    answer = await place.ask("POST", path, body)
    assert (answer.status, len(place.upstream.requests)) == ((200, 1) if allowed else (403, 0))


async def test_a_restricted_caller_can_list_its_own_models_only() -> None:
    place = Place(OPENAI, BOUND)
    assert (await place.ask("GET", "/v1/models/gpt-4o-mini")).status == 200
    assert (await place.ask("GET", "/v1/models/gpt-dear")).status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "POST"])
@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("?model=gpt-4o-mini", b"", 200),
        ("?model=gpt-dear", b"", 403),
        ("?mode%6c=gpt-dear&model=gpt-4o-mini", b"", 403),
        ("", b'{"model": "gpt-4o-mini"}', 200),
        ("", b'{"model": "gpt-dear"}', 403),
        ("", b'{"model": "gpt-4o-mini", "model": "gpt-dear"}', 400),
        ("", b'{"model": "gpt-4o-mini", "fallbacks": ["gpt-dear"]}', 403),
    ],
)
async def test_what_an_application_may_run_by_any_method_is_judged(
    method: str, query: str, body: bytes, status: int
) -> None:
    upstream = Upstream(answers(), answers())
    proxy = PassthroughProxy("http://internal:9000", transport=upstream.transport)
    app = Authenticate(InjectKey(proxy, pool=KeyPool(["k-1"])), identify=lambda scope: BOUND)
    headers = {"content-type": "application/json"} if body else {}
    answer = await asgi.request(app, method, f"/generate{query}", body=body, headers=headers)
    if method == "POST" and query == "?model=gpt-4o-mini":
        status = 403  # nothing in its body says which model it calls
    assert answer.status == status, answer.body
    assert len(upstream.requests) == (status == 200)
    whole = await asgi.request(app, "GET", "/status")
    assert whole.status == 200  # names no model


LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (OPENAI, "/v1/realtime?model=gpt-4o-mini&model=gpt-dear"),
        (OPENAI, "/v1/realtime?mode%6c=gpt-dear&model=gpt-4o-mini"),
        (OPENAI, "/v1/realtime?model=gpt-4o-mini&model="),
        (OPENAI, "/v1/realtime?intent=transcription"),
        (OPENAI, "/v1/responses?model=gpt-4o-mini"),
        (GEMINI, LIVE),
        (GEMINI, LIVE + "?model=gemini-flash-1"),
    ],
)
async def test_a_restricted_caller_gets_no_websocket_that_could_use_another_model(
    row: Provider, path: str
) -> None:
    app = PassthroughProxy(row.using("sk-1"), transport=Upstream(answers()).transport)
    scope = {
        **asgi.scope_of("GET", path),
        "type": "websocket",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        SCOPE_KEY: BOUND,
    }
    async with asgi.Exchange(app, scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["status"] == 403


# ── bodies that say one thing and mean another ───────────────────────────────

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
GOOD = b'{"model": "gpt-4o-mini", "messages": [], "max_tokens": 9}'
DEAR = b'{"model": "gpt-dear", "messages": [], "max_tokens": 9}'


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (JSON, GOOD, 200),
        ("application/json; charset=UTF-8", GOOD, 200),
        ("", GOOD, 200),
        (URLENCODED, b"model=gpt-4o-mini&prompt=a%20b", 200),
        (JSON, DEAR, 403),
        ("", DEAR, 403),
        (URLENCODED, b"model=gpt-dear&prompt=a", 403),
        (URLENCODED, b"model=gpt-4o-mini&mode%6c=gpt-dear", 400),
        (URLENCODED, b"model=gpt-4o-mini&MODEL=gpt-dear", 400),
        (URLENCODED, b"model=gpt-4o-mini&model[]=gpt-dear", 400),
        (URLENCODED, b"model=gpt-4o-mini&prompt=a;model=gpt-dear", 400),
        (URLENCODED, b"model=gpt-4o-mini&_charset_=utf-7", 400),
        (URLENCODED, b"model=gpt-4o-mini&%u006dodel=gpt-dear", 400),
        (URLENCODED, DEAR, 415),
        (URLENCODED, b"\xef\xbb\xbf" + DEAR, 415),
        ("text/plain", DEAR, 415),
        ("text/plain", GOOD, 415),
        ("application/json; charset=utf-7", GOOD, 415),
        ("application/json; charset=utf-16", GOOD, 415),
        ("application/json, text/plain", GOOD, 415),
        ("application/octet-stream", DEAR, 415),
        ("multipart/mixed; boundary=b", GOOD, 415),
        (FORM, DEAR, 400),
        (JSON, form((b"model", b"gpt-4o-mini")), 400),
        (JSON, b'{"model": "gpt-4o-mini", "models": ["gpt-dear"], "messages": []}', 403),
        (JSON, b'{"model": "gpt-4o-mini", "tools": [{"model": "gpt-dear"}]}', 403),
        (JSON, b'{"model": "gpt-4o-mini", "plugins": [{"allowed_models": ["gpt-dear"]}]}', 403),
        (JSON, b'{"model": "gpt-4o-mini", "deployment_id": "gpt-dear"}', 403),
        (JSON, b'{"model": "gpt-4o-mini", "lora_path": "gpt-dear"}', 403),
        (JSON, b'{"model": "gpt-4o-mini", "MODEL": "gpt-dear"}', 400),
        (JSON, b'{"model": "gpt-4o-mini", "model": "gpt-dear"}', 400),
        (JSON, b'{"models": ["gpt-4o-mini"]}', 403),
        (JSON, b'{"model": "gpt-4o-mini"}' + b"x" * 99, 400),
        (JSON, b'{"model": "../gpt-4o-mini"}', 400),
    ],
)  # fmt: skip
async def test_the_forwarded_body_is_the_one_that_was_checked(
    who: Principal, pieces: int, kind: str, body: bytes, status: int
) -> None:
    place = Place(OPENAI, who)
    answer = await place.ask("POST", CHAT, body, kind=kind, pieces=pieces)
    assert answer.status == status, answer.body
    assert [each.content for each in place.upstream.requests] == [body] * (status == 200)


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (CHAT, {"content-encoding": "gzip"}, 415),
        (CHAT, {"content-encoding": "identity"}, 200),
        (CHAT, {"content-encoding": "Identity"}, 200),
        (CHAT, {"azureml-model-deployment": "gpt-dear"}, 403),
        (CHAT + "?model=gpt-dear", {}, 403),
        (CHAT + "?a=1;mode%6c=gpt-dear", {}, 403),
        (CHAT + "?model=gpt-4o-mini", {}, 200),
    ],
)
async def test_a_model_is_checked_wherever_it_is_named(
    who: Principal, path: str, headers: dict[str, str], status: int
) -> None:
    place = Place(OPENAI, who)
    given = {"content-type": JSON, "content-length": str(len(GOOD)), **headers}
    answer = await asgi.request(place.app, "POST", path, GOOD, headers=given)
    assert answer.status == status, answer.body
    assert len(place.upstream.requests) == (status == 200)


async def test_callers_without_restrictions_send_any_body() -> None:
    place = Place(OPENAI, Principal("eve"))
    for kind, body in [("text/plain", DEAR), (JSON, b'{"model":"a","MODEL":"b"'), (FORM, b"--b ")]:
        assert (await place.ask("POST", CHAT, body, kind=kind)).status == 200
        assert place.upstream.requests[-1].content == body


async def test_callers_with_only_a_rate_limit_send_any_body() -> None:
    place = Place(OPENAI, Principal("eve", limits=Limits(rpm=9)))
    assert (await place.ask("POST", CHAT, DEAR, kind="text/plain")).status == 200


@pytest.mark.parametrize("who", [BOUND, RICH], ids=["bound", "budget"])
async def test_a_model_in_the_later_part_of_a_streamed_form_is_refused(
    who: Principal,
) -> None:
    place = Place(OPENAI, who)
    upload = form((b"file", BIG.encode()), (b"model", b"gpt-4o-mini"))
    answer = await place.ask("POST", "/v1/images/edits", upload, kind=FORM, pieces=30)
    assert answer.status in (400, 403)
    assert all(b"gpt-4o" not in request.content for request in place.upstream.requests)


@pytest.mark.parametrize(
    "path",
    ["/model/claude-opus-4%3A1/invoke", "/model/claude-haiku-1/../claude-opus-4/invoke",
     "/Model/claude-opus-4/converse", "/deployments\\claude-opus-4/x", "/engines/claude-opus-4/x"],
)  # fmt: skip
async def test_a_model_in_a_path_is_found_however_it_is_encoded(path: str) -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy(ANTHROPIC.using("sk-1"), paths="all", transport=upstream.transport)
    app = Authenticate(proxy, identify=lambda scope: BOUND)
    answer = await asgi.request(app, "POST", path, {"model": "claude-haiku-1"})
    assert answer.status in (400, 403)
    assert upstream.requests == []
