"""The pool's key is never shown, and a request of one caller does not cool down all keys."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import zlib
from typing import Any
from urllib.parse import quote

import pytest

from asgi_aiproxy import InjectKey, Key, KeyPool, OpenAIShim, PassthroughProxy
from asgi_aiproxy.credentials import StreamRedactor, redactor_for
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OLLAMA, OPENAI, azure, query
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, refuses

pytestmark = pytest.mark.anyio

SECRET = "sk-pool/se+cret=42"
WRITTEN = {
    "raw": SECRET,
    "percent": quote(SECRET, safe=""),
    "percent, lower": quote(SECRET, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "percent, twice": quote(quote(SECRET, safe=""), safe=""),
    "json": SECRET.replace("/", "\\/"),
    "json, unicode": SECRET.replace("+", "\\u002b"),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a user": base64.b64encode(f"{SECRET}:".encode()).decode(),
    "base64 of a password": base64.b64encode(f":{SECRET}".encode()).decode(),
    "hexadecimal": SECRET.encode().hex(),
    "hexadecimal, upper": SECRET.encode().hex().upper(),
    "html": "".join(f"&#{ord(letter)};" for letter in SECRET),
    "html, hexadecimal": "".join(f"&#x{ord(letter):X};" for letter in SECRET),
    "json, all escaped": "".join(f"\\u{ord(letter):04x}" for letter in SECRET),
}


ROW = Provider(name="q", dialect=OPENAI.dialect, base_url="http://up", auth=query("key"))


def vendor(upstream: Upstream, *keys: Key, row: Provider = ROW) -> PassthroughProxy:
    pool = KeyPool(keys or [Key(SECRET, id="1")])
    return PassthroughProxy(row.using(pool), paths="all", transport=upstream.transport)


def injected(upstream: Upstream) -> InjectKey:
    proxy = PassthroughProxy("http://up", transport=upstream.transport)
    return InjectKey(proxy, pool=KeyPool([Key(SECRET, id="1")]), scheme="Basic")


WAYS = pytest.mark.parametrize("way", [vendor, injected])


@WAYS
@pytest.mark.parametrize("status", [300, 400, 401, 403, 404, 418, 429, 500, 503])
@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_an_error_answer_does_not_show_the_key(way: Any, status: int, written: str) -> None:
    body = b'{"error":{"message":"bad key ' + written.encode() + b' here"}}'
    app = way(Upstream(Step([body], status, {"x-debug": f"k={written}"})))
    answer = await asgi.request(app, "GET", "/v1/x")
    assert written not in answer.body.decode()
    assert written not in str(answer.headers)
    assert "error" in json.loads(answer.body)
    if answer.header("x-debug"):  # else it is the proxy's own
        assert b"bad key [key]" in answer.body
        assert b" here" in answer.body
        assert answer.header(
            "x-debug",
        ).startswith("k=[key]")  # type: ignore[union-attr]


@WAYS
async def test_a_key_split_over_pieces_is_redacted_and_the_length_stays_correct(way: Any) -> None:
    body = f"before {SECRET} between {SECRET}".encode() + b" and after" * 200
    pieces = [body[at : at + 3] for at in range(0, len(body), 3)]
    app = way(Upstream(Step(pieces, 400, {"content-length": str(len(body))})))
    answer = await asgi.request(app, "GET", "/v1/x")
    assert len(answer.body) == len(body) == int(answer.header("content-length") or 0)
    assert SECRET.encode() not in answer.body
    assert answer.body.count(b"[key]") == 2
    assert answer.body.endswith(b" and after" * 200)


@WAYS
async def test_a_success_passes_byte_for_byte_but_its_headers_do_not_show_the_key(way: Any) -> None:
    app = way(Upstream(Step([f"it is {SECRET}".encode()], 200, {"x-debug": SECRET})))
    answer = await asgi.request(app, "GET", "/v1/x")
    assert answer.body == f"it is {SECRET}".encode()
    assert SECRET not in str(answer.headers)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_compressed_error_does_not_show_the_key(status: int, coding: str) -> None:
    text = b'{"error":{"message":"bad key ' + SECRET.encode() + b' here"}}'
    body = gzip.compress(text) if coding == "gzip" else zlib.compress(text)
    upstream = Upstream(Step([body], status, {"content-encoding": coding}))
    answer = await asgi.request(vendor(upstream), "GET", "/v1/x")
    assert answer.header("content-encoding") is None
    assert answer.json["error"]["message"] == "bad key [key]************* here"


async def test_an_invalid_compressed_error_is_not_forwarded() -> None:
    upstream = Upstream(Step([b"not gzip " + SECRET.encode()], 400, {"content-encoding": "gzip"}))
    answer = await asgi.request(vendor(upstream), "GET", "/v1/x")
    assert (answer.status, answer.body) == (400, b"")


EVENTS = [
    b'data: {"text":"one"}\n\n',
    b'event: error\ndata: {"error":{"message":"bad key ' + SECRET.encode() + b'"}}\n\n',
    b'data: {"text":"two"}\n\n',
]


@WAYS
@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
async def test_an_error_in_a_stream_that_began_well_does_not_show_the_key(
    way: Any, size: int
) -> None:
    whole = b"".join(EVENTS)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    if size == 1:  # (a word that comes in pieces is not seen: then whole lines are)
        pieces = [line + b"\n" for line in whole.split(b"\n")[:-1]]
    app = way(Upstream(Step(pieces, 200, {"content-type": "text/event-stream"})))
    answer = await asgi.request(app, "GET", "/v1/x")
    assert answer.body == whole.replace(SECRET.encode(), b"[key]".ljust(len(SECRET), b"*"))


async def test_the_headers_of_a_shims_success_do_not_show_the_key() -> None:
    step = answers()
    step.headers |= {"x-request-id": f"req-{SECRET}", "x-ratelimit-limit-requests": SECRET}
    shim = OpenAIShim(OPENAI.using(SECRET), transport=Upstream(step).transport)
    answer = await asgi.chat(shim)
    assert answer.status == 200
    assert (answer.header("x-request-id") or "").startswith("req-[key]")
    assert SECRET not in str(answer.headers)


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_neither_log_nor_record_shows_the_key(
    written: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"error": {"message": f"bad key {written}"}}).encode()
    records: list[UsageRecord] = []
    for make in (OpenAIShim, PassthroughProxy):
        upstream = Upstream(refuses(401, body))
        app: Any = make(OPENAI.using(SECRET), transport=upstream.transport, record=records.append)
        async with app:
            answer = await asgi.chat(app)
        assert answer.status >= 400
        assert written not in answer.body.decode()
    assert len(records) == 2
    assert written not in caplog.text + str(records)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://up/x/?key={}", "/ai/x/"),
        ("http://up/x/?a=1&key={}#z", "/ai/x/?a=1#z"),
        ("/x?key={}&a=%2F", "/ai/x?a=%2F"),
        ("https://elsewhere/x?token={}", "https://elsewhere/x"),
        ("https://elsewhere/{}", "https://elsewhere/[key]"),
    ],
)
async def test_a_redirect_does_not_carry_the_key(given: str, expected: str) -> None:
    location = given.format(quote(SECRET, safe=""))
    app = vendor(Upstream(Step([f"go to {location}".encode()], 307, {"location": location})))
    answer = await asgi.request(app, "GET", "/ai/x", root_path="/ai", headers={"host": "svc"})
    reported = (answer.header("location") or "").rstrip("*").removeprefix("http://svc")
    assert reported == expected
    assert quote(SECRET, safe="").encode() not in answer.body


async def test_a_callers_own_key_is_not_redacted() -> None:
    upstream = Upstream(refuses(400, b"bad key sk-of-the-caller"))
    app = PassthroughProxy(
        OPENAI.using("sk-pool"), transport=upstream.transport, allow_client_keys=True
    )
    headers = {"x-provider-key": "sk-of-the-caller"}
    answer = await asgi.request(app, "GET", "/v1/models", headers=headers)
    assert answer.body == b"bad key sk-of-the-caller"


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("user:long-password", "wrong: long-password"),
        (base64.b64encode(b"user:long-password").decode(), "wrong: long-password"),
        ("AKIA:secret-access-key:session-token", "token session-token"),
    ],
)
def test_parts_of_a_key_are_not_shown_either(secret: str, shown: str) -> None:
    found = redactor_for(secret)
    assert found is not None
    out = found.data(shown.encode())
    assert out.endswith(b"*")
    assert len(out) == len(shown)
    assert secret not in repr(found)


@pytest.mark.parametrize("before", ["Bearer ", "x:", "user:", "", "ab"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_key_within_longer_base64_is_redacted(before: str, encode: Any) -> None:
    found = redactor_for(SECRET)
    assert found is not None
    written = encode(f"{before}{SECRET} and after".encode())
    out = found.data(b'{"auth":"' + written + b'"}')
    assert len(out) == len(written) + 11
    shown = out.replace(b"*", b"").replace(b"[key]", b" ").split()
    for piece in shown:  # no digit is left that says more than two bits of it
        assert not any(SECRET[i : i + 3].encode() in _decodings(piece) for i in range(15))


def _decodings(piece: bytes) -> bytes:
    plain = piece.strip(b'{}":').translate(bytes.maketrans(b"-_", b"+/"))
    found = b""
    for skipped in range(4):
        rest = plain[skipped:]
        rest = rest[: len(rest) // 4 * 4]
        try:
            found += base64.b64decode(rest) + b"|"
        except ValueError:
            continue
    return found


def test_a_short_key_is_redacted_where_it_is_a_word() -> None:
    found = redactor_for("k3y-x9")
    assert found is not None
    assert found.data(b'{"k":"k3y-x9","i":"ak3y-x9b"}') == b'{"k":"[key]*","i":"ak3y-x9b"}'
    assert found.headers([(b"x", b"key=k3y-x9"), (b"y", b"1")])[0] == (b"x", b"key=[key]*")
    for plain in ("error", "secret", "123", ""):  # such a word stands anywhere
        assert redactor_for(plain) is None


def test_text_that_only_begins_like_a_key_is_not_redacted() -> None:
    found = redactor_for("sk-12345678")
    assert found is not None
    text = b'{"a":"sk-1234567","b":"100% \\u0041"}'
    assert found.data(text) == text
    stream = StreamRedactor(found)
    assert (
        b"".join([*(stream.feed(text[i : i + 1]) for i in range(len(text))), stream.close()])
        == text
    )


# ── what is about a path is held against no key ──────────────────────────────

KEYS = [Key("k-1", id="1"), Key("k-2", id="2"), Key("k-3", id="3")]
CHAT = "/v1/chat/completions"


async def health(app: PassthroughProxy | InjectKey) -> str:
    """The health of the keys, one letter each; none is in use."""
    pool = app._pool if isinstance(app, InjectKey) else app._target.provider.keys  # type: ignore[union-attr]
    assert pool is not None
    keys = sorted(await pool.status(), key=lambda key: key.id)
    assert {key.in_flight for key in keys} <= {0}
    return "".join(key.health.value[0] for key in keys)


@pytest.mark.parametrize("status", [401, 402])
@pytest.mark.parametrize(
    ("row", "method", "path"),
    [
        (GEMINI, "GET", "/v1beta/corpora"),
        (GEMINI, "GET", "/v1beta/openai/whatever"),
        (GEMINI, "POST", "/v1beta/models/m:generateContent"),
        (OPENAI, "GET", "/v1/models/x"),
        (OPENAI, "POST", CHAT),
    ],
)
async def test_a_path_where_all_keys_are_refused_cools_none_down(
    row: Provider, method: str, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream(refuses(status))
    app = vendor(upstream, *KEYS, row=row)
    for _ in range(3):
        assert (await asgi.request(app, method, path, b"{}")).status == 502
    assert await health(app) == "ooo"
    assert "none of them cools down" in caplog.text


async def test_a_key_that_is_refused_where_another_is_not_cools_down() -> None:
    for other in (answers(), refuses(400), refuses(404)):
        app = vendor(Upstream(refuses(401), refuses(401), other), *KEYS, row=OPENAI)
        await asgi.request(app, "GET", "/v1/models")
        assert await health(app) == "qqo"


@pytest.mark.parametrize("other", [429, 500, 503])
async def test_a_response_that_proves_nothing_about_a_key_affects_no_other(other: int) -> None:
    steps = refuses(401), refuses(401), refuses(other)
    app = vendor(Upstream(*steps), *KEYS, row=OPENAI)
    await asgi.request(app, "GET", "/v1/models")
    assert await health(app) == ("ooc" if other == 429 else "ooo")


@pytest.mark.parametrize(
    ("row", "method", "path", "cooldowns"),
    [
        (OPENAI, "POST", CHAT, "q"),
        (OPENAI, "POST", "/v1/responses", "q"),
        (GEMINI, "POST", "/v1beta/models/m:streamGenerateContent?alt=sse", "q"),
        (GEMINI, "POST", "/v1beta/openai/chat/completions", "q"),
        (ANTHROPIC, "POST", "/v1/messages", "q"),
        (azure("https://r.example"), "POST", "/openai/v1/responses", "q"),
        (azure("https://r.example"), "POST", "/openai/deployments/d/chat/completions", "q"),
        (OLLAMA, "POST", "/api/chat", "q"),
        (ANTHROPIC, "POST", "/v1/messages/batches", "o"),
        (OPENAI, "GET", "/v1/models", "o"),
        (OPENAI, "POST", "/v1/files", "o"),
        (OPENAI, "GET", CHAT, "o"),
        (GEMINI, "POST", "/v1beta/openai/whatever/chat/completions", "o"),
    ],
)
async def test_the_only_key_that_is_tried_cools_down_if_it_can_call_no_model(
    row: Provider, method: str, path: str, cooldowns: str
) -> None:
    app = vendor(Upstream(refuses(401)), Key("k-1", id="1"), row=row)
    assert (await asgi.request(app, method, path, b"{}")).status == 502
    assert await health(app) == cooldowns
