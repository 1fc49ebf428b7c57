"""One id per request: in its response, in errors, in logs and in the usage record."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import Any

import pytest

from asgi_aiproxy import (
    Authenticate,
    InjectKey,
    KeyPool,
    OpenAIShim,
    PassthroughProxy,
    ProviderRouter,
    UsageRecord,
    log_usage,
)
from asgi_aiproxy.logs import JSONFormatter
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.shim import AIShim
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
JSON = {"content-type": "application/json"}
PATH = "/v1/chat/completions"
MADE = re.compile(r"[0-9a-f]{32}")


class RecordingSink:
    def __init__(self) -> None:
        self.records: list[UsageRecord] = []

    async def __call__(self, record: UsageRecord) -> None:
        self.records.append(record)


def built(face: str, *steps: Any) -> tuple[Any, RecordingSink]:
    sink, upstream = RecordingSink(), Upstream(*steps)
    provider, options = OPENAI.using("sk-one-and-only"), {"transport": upstream.transport}
    if face == "shim":
        return OpenAIShim(provider, record=sink, backoff=0.001, **options), sink
    if face == "router":
        router = ProviderRouter(providers=[provider], record=sink, **options)
        return router, sink
    return PassthroughProxy(provider, record=sink, **options), sink


async def recorded(app: Any, sink: RecordingSink) -> UsageRecord:
    for part in [app, *getattr(app, "_shims", {}).values(), *getattr(app, "_natives", {}).values()]:
        if hasattr(part, "_recorder"):
            await part._recorder.drain()
    (record,) = sink.records
    return record


@pytest.mark.parametrize("face", ["shim", "proxy", "router"])
@pytest.mark.parametrize(
    ("step", "body"),
    [(answers(), CHAT), (streams(), STREAM), (refuses(500), CHAT), (refuses(401), CHAT)],
)
@pytest.mark.parametrize("said", [None, "req-of/the.caller:7"])
async def test_every_answer_has_the_id_of_its_record(
    face: str, step: Any, body: bytes, said: str | None
) -> None:
    app, sink = built(face, step)
    headers = {**JSON, "content-length": str(len(body))}
    if said is not None:
        headers["x-request-id"] = said
    path = PATH if face != "router" else "/openai" + PATH
    answer = await asgi.request(app, "POST", path, body, headers=headers)
    ids = [value for name, value in answer.headers if name == "aiproxy-request-id"]
    assert len(ids) == 1
    assert ids[0] == said if said is not None else MADE.fullmatch(ids[0])
    record = await recorded(app, sink)
    assert record.request_id == ids[0]
    assert MADE.fullmatch(record.id)
    assert record.id != said  # what callers choose identifies no record


@pytest.mark.parametrize("odd", ["", "a b", "x" * 129, 'a"b', "a\tb", "ä", "-a", "a;b"])
async def test_an_id_that_could_do_harm_is_replaced(odd: str) -> None:
    app, _ = built("shim", answers())
    answer = await asgi.request(app, "POST", PATH, CHAT, headers={**JSON, "x-request-id": odd})
    assert MADE.fullmatch(answer.header("aiproxy-request-id") or "")


async def test_an_upstreams_header_of_that_name_is_replaced() -> None:
    app, _ = built("proxy", answers(), answers())
    step = answers()
    step.headers["aiproxy-request-id"] = "theirs"
    app, _ = built("proxy", step)
    answer = await asgi.request(app, "GET", "/v1/models", headers={"x-request-id": "mine"})
    assert [v for n, v in answer.headers if n == "aiproxy-request-id"] == ["mine"]


async def test_errors_of_paths_models_and_tokens_have_an_id_too() -> None:
    shim, _ = built("shim", answers())
    app = Authenticate(shim, verify=static_tokens({"token": "ada"}))
    named = {"x-request-id": "mine", "authorization": "Bearer token"}
    for method, path, headers in (
        ("GET", "/v1/models", {"x-request-id": "mine"}),
        ("GET", "/nothing", named),
        ("PUT", PATH, named),
        ("GET", "/v1/models/m", named),
    ):
        answer = await asgi.request(app, method, path, headers=headers)
        assert answer.header("aiproxy-request-id") == "mine", path


async def test_error_bodies_have_the_id_where_their_api_has_a_member_for_it() -> None:
    upstream = Upstream(refuses(500))
    app = AIShim(OPENAI.using("sk-one-and-only"), transport=upstream.transport, attempts=1)
    named = {**JSON, "x-request-id": "mine", "anthropic-version": "2023-06-01"}
    body = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'
    answer = await asgi.request(app, "POST", "/v1/messages", body, headers=named)
    assert answer.json["request_id"] == "mine"
    body = b'{"contents":[{"parts":[{"text":"Hi"}]}]}'
    path = "/v1beta/models/m:generateContent"
    answer = await asgi.request(app, "POST", path, body, headers=named)
    assert answer.json["error"]["details"][0]["requestId"] == "mine"


async def test_an_application_behind_the_proxy_gets_the_id_and_the_trace() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy("http://internal:9000", transport=upstream.transport)
    app = InjectKey(proxy, pool=KeyPool(["key-one-1"]))
    answer = await asgi.request(app, "GET", "/x", headers={"traceparent": "00-1-2-01"})
    sent = upstream.requests[0].headers
    assert sent["x-request-id"] == answer.header("aiproxy-request-id")
    assert sent["traceparent"] == "00-1-2-01"
    await asgi.request(app, "GET", "/x", headers={"x-request-id": "mine"})
    assert upstream.requests[1].headers.get_list("x-request-id") == ["mine"]


async def test_a_shim_sends_vendors_neither() -> None:
    upstream = Upstream(answers())
    for row in (OPENAI, ANTHROPIC, GEMINI):
        app = OpenAIShim(row.using("key-one-1"), transport=upstream.transport)
        headers = {"traceparent": "00-1-2-01", "x-request-id": "mine"}
        await asgi.chat(app, headers=headers)
        assert "traceparent" not in upstream.requests[-1].headers
        assert "x-request-id" not in upstream.requests[-1].headers


async def test_log_lines_name_the_request_the_attempts_and_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    upstream = Upstream(refuses(503))
    app = OpenAIShim(
        OPENAI.using("sk-one-and-only"),
        transport=upstream.transport,
        record=log_usage,
        backoff=0.001,
    )
    await asgi.chat(app, headers={"x-request-id": "mine"})
    await app._recorder.drain()
    lines = [each.getMessage() for each in caplog.records if each.name.startswith("asgi_aiproxy")]
    assert all("mine" in line for line in lines)
    assert len([line for line in lines if "passed over" in line]) >= 2
    (usage,) = [line for line in lines if line.startswith("failed ")]
    assert "attempts=3" in usage
    assert "request=mine" in usage
    assert "error='no: 503'" in usage


async def test_json_lines_hold_time_level_message_and_the_whole_record() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    logger = logging.getLogger("asgi_aiproxy.usage")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        await log_usage(UsageRecord(id="1", model="a\nb", error="x\ud800", attempts=2))
        try:
            raise RuntimeError("deep")
        except RuntimeError:
            logger.exception("it broke\nin two")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["usage"]["attempts"] == 2
    assert first["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00", first["time"])
    assert "deep" in second["exception"]
