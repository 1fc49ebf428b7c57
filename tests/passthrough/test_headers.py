"""Headers and parameters that could change a checked request."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from asgi_aiproxy import InjectKey, Key, KeyPool, OpenAIShim, PassthroughProxy, Provider
from asgi_aiproxy.passthrough.headers import VENDOR, AmbiguousFramingError, read_request_headers
from asgi_aiproxy.providers import GEMINI, OPENAI, header, query
from asgi_aiproxy.upstream import SocketTransport
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers
from tests.support.socket_server import Line, Wire

pytestmark = pytest.mark.anyio

SECRET = "pool-secret/1"
ACCOUNTS = {"openai-organization": "org-1", "openai-project": "p-1", "x-goog-user-project": "g-1"}
OVERRIDES = dict.fromkeys(["x-http-method-override", "x-http-method", "x-method-override"], "PUT")


async def sent(app: object, upstream: Upstream, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers that the upstream gets."""
    await asgi.request(app, "GET", "/v1/models", headers=headers)
    return dict(upstream.requests[-1].headers)


async def test_header_names_that_wsgi_confuses_are_not_forwarded() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy("http://up", transport=upstream.transport)
    app = InjectKey(proxy, pool=KeyPool([SECRET]), header="x-report-key")
    given = {"X_Forwarded_For": "6.6.6.6", "X_Report_Key": "mine", "x-own": "1"}
    seen = await sent(app, upstream, {name.lower(): value for name, value in given.items()})
    assert not [name for name in seen if "_" in name]
    assert (seen["x-report-key"], seen["x-own"]) == (SECRET, "1")


@pytest.mark.parametrize("name", ["x-report-key", "x_report_key", "x_report-key"])
async def test_no_app_gets_the_callers_key_together_with_the_pools(name: str) -> None:
    seen = []

    async def app(scope: dict[str, object], receive: object, send: asgi.Any) -> None:
        seen.append(dict(scope["headers"]))  # type: ignore[call-overload]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    injected = InjectKey(app, pool=KeyPool([SECRET]), header="x-report-key")  # type: ignore[arg-type]
    await asgi.request(injected, "GET", "/", headers={name: "mine"})
    assert seen == [{b"x-report-key": SECRET.encode()}]


async def test_method_overrides_and_accounts_of_the_caller_are_not_sent_to_a_vendor() -> None:
    upstream = Upstream(answers())
    app = PassthroughProxy(OPENAI.using("sk-pool"), transport=upstream.transport)
    seen = await sent(app, upstream, {**ACCOUNTS, **OVERRIDES, "openai-beta": "x"})
    assert not {*ACCOUNTS, *OVERRIDES} & set(seen)
    assert seen["openai-beta"] == "x"
    row = OPENAI.using("sk-pool", headers={"OpenAI-Organization": "org-ours"})
    app = PassthroughProxy(row, transport=upstream.transport)
    seen = await sent(app, upstream, ACCOUNTS)
    assert seen["openai-organization"] == "org-ours"


async def test_a_vendor_gets_its_key_alone_whatever_header_that_is_in() -> None:
    upstream = Upstream(answers())
    row = replace(OPENAI, auth=header("X-Vendor-Key")).using(SECRET)
    app = PassthroughProxy(row, transport=upstream.transport)
    seen = await sent(app, upstream, {"x-vendor-key": "mine"})
    assert seen["x-vendor-key"] == SECRET


def test_names_of_headers_are_recognized_in_any_case() -> None:
    given = [(b"Authorization", b"Bearer s"), (b"AIProxy-Key", b"k"), (b"Content-Length", b"5")]
    found = read_request_headers(given, VENDOR)
    assert (found.passed, found.credentials, found.length) == ([], given[:1], 5)
    assert found.read["aiproxy-key"] == "k"
    with pytest.raises(AmbiguousFramingError):
        read_request_headers([*given, (b"content-length", b"5")], VENDOR)


async def test_with_a_key_of_its_own_a_caller_names_its_account() -> None:
    upstream = Upstream(answers())
    app = PassthroughProxy(
        OPENAI.using("sk-pool"), transport=upstream.transport, allow_client_keys=True
    )
    seen = await sent(app, upstream, {**ACCOUNTS, "x-provider-key": "sk-own"})
    assert ACCOUNTS.items() <= seen.items()
    assert not set(ACCOUNTS) & set(await sent(app, upstream, ACCOUNTS))


async def test_an_application_gets_what_the_caller_sends() -> None:
    upstream = Upstream(answers())
    app = PassthroughProxy("http://up", transport=upstream.transport)
    given = {**ACCOUNTS, **OVERRIDES}
    assert given.items() <= (await sent(app, upstream, given)).items()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1beta/tunedModels/t", 200),
        ("PATCH", "/v1beta/tunedModels/t", 200),
        ("POST", "/v1beta/tunedModels", 200),
        ("POST", "/v1beta/tunedModels/t:generateContent", 200),
        ("POST", "/v1beta/tunedModels/t:streamGenerateContent", 200),
        ("GET", "/v1alpha/tunedModels/t/operations/o", 200),
        ("POST", "/v1beta/corpora/c:query", 200),
        ("GET", "/v1beta/corpora/c/documents/d/chunks/e", 200),
        ("POST", "/upload/v1beta/files", 200),
        ("GET", "/download/v1beta/files/f:download", 200),
        ("POST", "/v1beta/openai/chat/completions", 200),
        ("GET", "/v1/models/m", 200),
        ("POST", "/v1beta/tunedModels/t:transferOwnership", 404),
        ("GET", "/v1beta/tunedModels/t/permissions", 404),
        ("POST", "/v1beta/tunedModels/t/permissions", 404),
        ("DELETE", "/v1beta/tunedModels/t/permissions/p", 404),
        ("GET", "/v1beta/corpora/c/permissions", 404),
        ("POST", "/upload/v1beta/corpora/c/permissions", 404),
        ("POST", "/v1internal/models/m", 404),
        ("POST", "/v1internal:generateContent", 404),
        ("GET", "/v1/../v1internal/models", 400),
    ],
)
async def test_permissions_and_internal_paths_of_gemini_are_not_served(
    method: str, path: str, status: int
) -> None:
    upstream = Upstream(answers())
    app = PassthroughProxy(GEMINI.using("AIza-pool"), transport=upstream.transport)
    assert (await asgi.request(app, method, path, b"{}")).status == status
    assert len(upstream.requests) == (status == 200)


# ── a key in the query ───────────────────────────────────────────────────────

ROW = Provider(name="q", dialect=OPENAI.dialect, base_url="http://up/v1", auth=query("api key"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", b"api%20key=pool-secret%2F1"),
        ("?a=%2F&b", b"a=%2F&b&api%20key=pool-secret%2F1"),
        ("?api+key=mine&a=1&api%20key=mine", b"a=1&api%20key=pool-secret%2F1"),
    ],
)
async def test_a_key_goes_into_the_query_in_place_of_the_callers(
    given: str, expected: bytes
) -> None:
    upstream = Upstream(answers())
    app = PassthroughProxy(ROW.using(SECRET), paths="all", transport=upstream.transport)
    assert (await asgi.request(app, "GET", f"/v1/x{given}")).status == 200
    assert upstream.requests[-1].url.query == expected
    assert SECRET not in str(upstream.requests[-1].headers)


async def test_a_shim_sends_the_key_in_the_query_too() -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(ROW.using(SECRET), transport=upstream.transport)
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
    assert (await asgi.request(app, "POST", "/v1/chat/completions", body)).status == 200
    assert upstream.requests[-1].url.query == b"api%20key=pool-secret%2F1"


@pytest.mark.parametrize("dies", [False, True])
async def test_no_shown_or_logged_url_contains_the_key(
    dies: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        if not dies:
            await line.answer(b"no", "401 Unauthorized")

    caplog.set_level(logging.DEBUG)
    async with Wire(handler) as wire:
        transport = SocketTransport()
        row = ROW.using(Key(SECRET, id="1"), base_url=wire.url)
        app = PassthroughProxy(row, paths="all", transport=transport)
        answer = await asgi.request(app, "GET", "/x")
        await transport.aclose()
    reported = f"{answer.body!r} {answer.headers} {caplog.text} {row!r} {app!r}"
    assert answer.status == 502
    assert "pool-secret" not in reported
