"""A table of required behaviour of an HTTP proxy, over raw sockets on both sides, under every
server.

Each row has what a client sends, what the upstream answers, and what both receive.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from asgi_aiproxy import Timeouts
from tests.support.passthrough_upstream import Behind, Frontend, Result, behind, converse
from tests.support.socket_server import Handler, Line

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Check = Callable[[Behind, Result], None]


@dataclass(frozen=True)
class Row:
    """One row. `answer` is bytes, or a handler; all `checks` are made."""

    name: str
    request: bytes
    answer: bytes | Handler = OK
    checks: tuple[Check, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""

    def __str__(self) -> str:
        return self.name


def ask(line: str, *headers: str, body: bytes = b"") -> bytes:
    """A request; a body without a length of its own gets one."""
    lines = [f"{line} HTTP/1.1", *headers]
    if not any(header.lower().startswith("host:") for header in headers):
        lines.insert(1, "Host: outside.example")
    framed = any(h.lower().startswith(("content-length", "transfer-encoding")) for h in headers)
    if body and not framed:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunks(*pieces: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n" + trailer + b"\r\n"


def says(head: str, body: bytes = b"") -> bytes:
    """A response as it is sent."""
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


# ── what is checked ──────────────────────────────────────────────────────────


def line(expected: str) -> Check:
    def check(at: Behind, got: Result) -> None:
        assert at.request.line == f"{expected} HTTP/1.1"

    return check


def sent(name: str, *values: str) -> Check:
    """The upstream receives these values of a header, in this order."""

    def check(at: Behind, got: Result) -> None:
        assert at.request.all(name) == list(values)

    return check


def body(expected: bytes) -> Check:
    def check(at: Behind, got: Result) -> None:
        assert at.request.body == expected

    return check


def client_gets(name: str, *values: str) -> Check:
    """The client receives these values of a header."""

    def check(at: Behind, got: Result) -> None:
        assert [value for key, value in got.got.headers if key == name] == list(values)

    return check


def answered(status: int, expected: bytes | None = b"ok") -> Check:
    def check(at: Behind, got: Result) -> None:
        assert got.got.status == status
        assert got.whole
        if expected is not None:
            assert got.got.body == expected

    return check


def cut(at: Behind, got: Result) -> None:
    """The client can detect that the response is incomplete."""
    assert got.got.status == 200
    assert not got.whole


def fails(status: int) -> Check:
    """An error of the proxy itself, without the upstream's address."""

    def check(at: Behind, got: Result) -> None:
        assert got.got.status == status
        assert got.whole
        assert b'"error"' in got.got.body
        assert str(at.wire.port).encode() not in got.got.body

    return check


def requested(count: int) -> Check:
    def check(at: Behind, got: Result) -> None:
        assert len(at.requests) == count

    return check


def framed_once(at: Behind, got: Result) -> None:
    """A body is sent with its length, or in chunks if the length is unknown."""
    request = at.request
    assert len(request.all("content-length") + request.all("transfer-encoding")) == 1


def refused_or_clean(at: Behind, got: Result) -> None:
    """Some servers drop the invalid length, and close the connection, as in RFC 9112, 6.1."""
    if at.requests:
        framed_once(at, got)
        assert got.got.header("connection") == "close"
    else:
        refused(at, got)


def from_client(at: Behind, got: Result) -> None:
    """(uvicorn trusts local addresses by default.)"""
    client = "1.2.3.4" if at.frontend.server == "uvicorn" else "127.0.0.1"
    assert at.request.all("x-forwarded-for") == [client]


def refused(at: Behind, got: Result) -> None:
    """Refused with an error status, or by closing the connection; nothing reached the upstream."""
    assert at.requests == []
    assert got.answer is None or got.answer.status in (400, 404, 405, 408, 413, 414, 426, 431, 501)


# ── upstreams ────────────────────────────────────────────────────────────────


def head_only(answer: bytes) -> Handler:
    """Answers as soon as the request head has arrived, and reads no body."""

    async def handler(line: Line) -> None:
        await line.head()
        await line.send(answer)
        await line.gone()

    return handler


def closes_after(data: bytes) -> Handler:
    """Sends this part of a response, and closes the connection."""

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(data)

    return handler


def resets_after(data: bytes) -> Handler:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(data)
        await asyncio.sleep(0.05)
        line.reset()

    return handler


def silent_after(data: bytes) -> Handler:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(data)
        await line.gone()

    return handler


def once(answer: bytes) -> Handler:
    """Answers the first request of a connection, and closes it at the second."""

    async def handler(line: Line) -> None:
        await line.request()
        await line.send(answer)
        await line.request()

    return handler


# ── the rows ─────────────────────────────────────────────────────────────────

METHODS = [
    Row(f"method {method}", ask(f"{method} /x"), checks=(line(f"{method} /x"), answered(200)))
    for method in ("GET", "DELETE", "OPTIONS", "PROPFIND", "QUERY")
] + [
    Row(
        f"method {method} with a body",
        ask(f"{method} /x", "Content-Type: text/plain", body=b"hello"),
        checks=(line(f"{method} /x"), body(b"hello"), sent("content-length", "5"), answered(200)),
    )
    for method in ("POST", "PUT", "PATCH", "DELETE", "GET", "REPORT")
]
METHODS += [
    Row(
        "HEAD has the length and no body",
        ask("HEAD /x"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n",
        (
            line("HEAD /x"),
            answered(200, b""),
            client_gets("content-length", "1234"),
            client_gets("x-a", "b"),
        ),
    ),
    Row(
        "POST without a body",
        ask("POST /x", "Content-Length: 0"),
        checks=(body(b""), sent("content-length", "0"), answered(200)),
    ),
    Row("TRACE is refused", ask("TRACE /x"), checks=(refused,)),
    Row("CONNECT is refused", ask("CONNECT other.example:443"), checks=(refused,)),
]

LONG = bytes(range(256)) * 2000
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n\x00\xff\r\n--b--\r\n'
)
PACKED = gzip.compress(b"hello" * 100)

BODIES = [
    Row(
        "a long body keeps its length",
        ask("POST /x", body=LONG),
        checks=(body(LONG), sent("content-length", str(len(LONG))), answered(200)),
        options={"max_replay": 1000},
    ),
    Row(
        "a chunked body stays chunked",
        ask("POST /x", "Transfer-Encoding: chunked", body=chunks(b"hel", b"lo")),
        checks=(body(b"hello"), framed_once, answered(200)),
    ),
    Row(
        "a chunked body in many small pieces",
        ask("POST /x", "Transfer-Encoding: chunked", body=chunks(*[b"%d" % i for i in range(500)])),
        checks=(body(b"".join(b"%d" % i for i in range(500))), answered(200)),
    ),
    Row(
        "the trailers of a request are dropped",
        ask(
            "POST /x",
            "Transfer-Encoding: chunked",
            "Trailer: X-Sum",
            body=chunks(b"hello", trailer=b"X-Sum: 1\r\n"),
        ),
        checks=(body(b"hello"), sent("x-sum"), sent("trailer"), answered(200)),
    ),
    Row(
        "multipart passes byte for byte",
        ask("POST /x", "Content-Type: multipart/form-data; boundary=b", body=MULTIPART),
        checks=(body(MULTIPART), sent("content-type", "multipart/form-data; boundary=b")),
    ),
    Row(
        "a compressed body passes as it is",
        ask("POST /x", "Content-Encoding: gzip", body=PACKED),
        checks=(body(PACKED), sent("content-encoding", "gzip")),
    ),
    Row(
        "a client that expects 100-continue gets it",
        ask("POST /x", "Expect: 100-continue", body=b"hello"),
        checks=(body(b"hello"), sent("expect"), answered(200)),
    ),
    Row(
        "a refusal before the body is in",
        ask("POST /x", "Content-Length: 3000000", body=b"x" * 300_000),
        head_only(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"),
        (lambda at, got: None if got.got.status == 413 else pytest.fail(str(got)),),
        {"max_replay": 1000},
    ),
    Row(
        "a body beyond the limit",
        ask("POST /x", body=b"x" * 2000),
        checks=(fails(413), requested(0)),
        options={"max_body": 1000},
    ),
    Row(
        "a chunked body beyond the limit",
        ask("POST /x", "Transfer-Encoding: chunked", body=chunks(b"x" * 800, b"x" * 800)),
        head_only(b""),
        (fails(413),),
        {"max_body": 1000},
    ),
]

HEADERS = [
    Row(
        "repeated headers stay, in order",
        ask("GET /x", "X-A: 1", "X-B: 2", "X-A: 3"),
        checks=(sent("x-a", "1", "3"), sent("x-b", "2")),
    ),
    Row(
        "headers about the connection stay with it",
        ask(
            "GET /x",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: trailers",
            "Proxy-Authorization: Basic abc",
            "Trailer: X-Sum",
        ),
        checks=tuple(
            sent(name)
            for name in ("keep-alive", "proxy-connection", "te", "proxy-authorization", "trailer")
        ),
    ),
    Row(
        "headers that connection names stay with it",
        ask("GET /x", "Connection: keep-alive, X-Secret, x-other", "X-Secret: 1", "X-Other: 2"),
        checks=(sent("x-secret"), sent("x-other"), sent("connection")),
    ),
    Row(
        "an upgrade to a protocol that is none of ours is not asked for",
        ask(
            "GET /x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: foo/2", "HTTP2-Settings: AA"
        ),
        checks=(sent("upgrade"), sent("http2-settings"), answered(200)),
    ),
    Row(
        "ranges and conditions pass",
        ask("GET /x", "Range: bytes=0-3", 'If-None-Match: "a"', "If-Range: b"),
        says("HTTP/1.1 206 Partial\nContent-Length: 4\nContent-Range: bytes 0-3/9", b"abcd"),
        (
            sent("range", "bytes=0-3"),
            sent("if-none-match", '"a"'),
            answered(206, b"abcd"),
            client_gets("content-range", "bytes 0-3/9"),
        ),
    ),
    Row(
        "the upstream is called by its own name",
        ask("GET /x"),
        checks=(
            lambda at, got: sent("host", f"127.0.0.1:{at.wire.port}")(at, got),
            sent("x-forwarded-host", "outside.example"),
        ),
    ),
    Row(
        "or by the client's, if that is wished",
        ask("GET /x"),
        checks=(sent("host", "outside.example"),),
        options={"keep_host": True},
    ),
    Row(
        "an application gets the client's address, not what the client sent for it",
        ask("GET /x", "X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4"),
        checks=(
            from_client,
            sent("x-forwarded-proto", "http"),
            sent("x-real-ip"),
            sent("forwarded"),
        ),
    ),
    Row(
        "behind another proxy the way is added to",
        ask("GET /x", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https"),
        checks=(
            sent("x-forwarded-for", "127.0.0.1, 127.0.0.1"),
            sent("x-forwarded-proto", "https"),
        ),
        options={"forwarded": "append"},
    ),
    Row(
        "or no address is sent",
        ask("GET /x", "X-Forwarded-For: 1.2.3.4"),
        checks=(sent("x-forwarded-for"), sent("x-forwarded-host")),
        options={"forwarded": "drop"},
    ),
    Row(
        "an application gets cookies, credentials and codings as they are",
        ask("GET /x", "Cookie: a=1", "Authorization: Bearer t", "Accept-Encoding: br, gzip"),
        checks=(
            sent("cookie", "a=1"),
            sent("authorization", "Bearer t"),
            sent("accept-encoding", "br, gzip"),
        ),
    ),
    Row(
        "bytes beyond ASCII and empty values",
        ask("GET /x", "X-Name: caf\xe9", "X-Empty:"),
        checks=(sent("x-name", "caf\xe9"), answered(200)),
    ),
]

PATHS = [
    Row(f"path {path}", ask(f"GET {path}"), checks=(line(f"GET {path}"), answered(200)))
    for path in (
        "/",
        "/a/b/",
        "/a%2Fb",
        "/a%20b",
        "/%41%7e",
        "/caf%C3%A9",
        "/a//b",
        "/a;v=1/b",
        "/x?a=1&a=2&b=%2F+%20&c",
        "/x?next=http://other/../../y",
        "/100%25",
    )
] + [
    Row(f"path {path} is refused", ask(f"GET {path}"), checks=(refused,))
    for path in (
        "/../x",
        "/a/%2e%2e/x",
        "/a/..%2Fx",
        "/a/%2E./x",
        "/a/%252e%252e/x",
        "/a/..;/x",
        "/a/..%5cx",
        "/a/./x",
        "/a%00b",
        "/a%0d%0aX-Evil:1",
        "http://other.example/../x",
    )
]
PATHS += [
    Row(
        "a base path goes before",
        ask("GET /x?y=1"),
        checks=(line("GET /base/v2/x?y=1"),),
        base="/base/v2",
    ),
    Row(
        "a base path with a slash at its end",
        ask("GET /x"),
        checks=(line("GET /base/x"),),
        base="/base/",
    ),
]

ANSWERS = [
    Row(
        f"answer: {name}",
        ask("GET /x"),
        answer,
        (answered(200, b"hello world"),),
    )
    for name, answer in {
        "with a length": says("HTTP/1.1 200 OK\nContent-Length: 11", b"hello world"),
        "in chunks": says(
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunks(b"hello", b" world")
        ),
        "until closed": closes_after(says("HTTP/1.1 200 OK", b"hello world")),
        "HTTP/1.0": closes_after(says("HTTP/1.0 200 OK", b"hello world")),
        "after 100 and 103": says("HTTP/1.1 100 Continue")
        + says("HTTP/1.1 103 Early Hints\nLink: </a>")
        + says("HTTP/1.1 200 OK\nContent-Length: 11", b"hello world"),
    }.items()
] + [
    Row(
        f"status {status} passes with its body",
        ask("GET /x"),
        says(f"HTTP/1.1 {status} X\nContent-Length: 2", b"ok"),
        (answered(status),),
    )
    for status in (201, 203, 300, 400, 401, 403, 404, 409, 418, 429, 451, 500, 502, 503, 599)
]
ANSWERS += [
    Row(
        "the trailers of an answer are dropped",
        ask("GET /x"),
        says(
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-Sum",
            chunks(b"ok", trailer=b"X-Sum: 1\r\n"),
        ),
        (answered(200), client_gets("x-sum"), client_gets("trailer")),
    ),
    Row("204 has no body", ask("DELETE /x"), says("HTTP/1.1 204 No"), (answered(204, b""),)),
    Row(
        "304 has no body, whatever its length says",
        ask("GET /x"),
        says('HTTP/1.1 304 Same\nContent-Length: 500\nETag: "a"'),
        (answered(304, b""), client_gets("etag", '"a"')),
    ),
    Row(
        "a compressed answer passes as it is",
        ask("GET /x", "Accept-Encoding: gzip"),
        says(f"HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: {len(PACKED)}", PACKED),
        (answered(200, PACKED), client_gets("content-encoding", "gzip")),
    ),
    Row(
        "so does a body in an unknown coding",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Encoding: made-up\nContent-Length: 2", b"ok"),
        (answered(200), client_gets("content-encoding", "made-up")),
    ),
    Row(
        "repeated cookies stay",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nSet-Cookie: a=1\nSet-Cookie: b=2; Path=/\nContent-Length: 2", b"ok"),
        (client_gets("set-cookie", "a=1", "b=2; Path=/"),),
    ),
    Row(
        "a redirect elsewhere is passed on, not followed",
        ask("GET /x"),
        says("HTTP/1.1 302 Found\nLocation: https://other.example/y\nContent-Length: 0"),
        (answered(302, b""), client_gets("location", "https://other.example/y"), requested(1)),
    ),
    Row(
        "a redirect within the upstream leads through the proxy",
        ask("GET /x"),
        lambda line: _redirects(line),
        (answered(307, b""), client_gets("location", "http://outside.example/y?z=1")),
    ),
    Row(
        "headers about the connection stay with it, both ways",
        ask("GET /x"),
        says(
            "HTTP/1.1 200 OK\nConnection: X-Hop\nX-Hop: 1\nKeep-Alive: timeout=1\n"
            "Proxy-Authenticate: Basic\nUpgrade: h2c\nAlt-Svc: h3\nX-End: 1\nContent-Length: 2",
            b"ok",
        ),
        (
            answered(200),
            client_gets("x-end", "1"),
            *(
                client_gets(name)
                for name in ("x-hop", "keep-alive", "proxy-authenticate", "upgrade", "alt-svc")
            ),
        ),
    ),
    Row(
        "there is one date",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nDate: Sat, 01 Jan 2000 00:00:00 GMT\nContent-Length: 2", b"ok"),
        (
            lambda at, got: (
                None
                if len([1 for name, _ in got.got.headers if name == "date"]) <= 1
                else pytest.fail("two dates")
            ),
        ),
    ),
    Row(
        "a megabyte",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Length: 1048576", b"0123456789abcdef" * 65536),
        (answered(200, b"0123456789abcdef" * 65536),),
    ),
    Row(
        "bytes beyond ASCII in a header",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nX-Name: caf\xe9\nContent-Length: 2", b"ok"),
        (client_gets("x-name", "caf\xe9"),),
    ),
]


async def _redirects(line: Line) -> None:
    request = await line.request()
    host = request.header("host")
    await line.answer(b"", "307 There", f"Location: http://{host}/y?z=1")


QUICK = Timeouts(first=0.2, idle=0.2, connect=5.0)
LENGTH = says("HTTP/1.1 200 OK\nContent-Length: 100", b"only this")
CHUNKED = says("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"9\r\nonly this\r\n")

FAILURES = [
    Row("upstream closes before a response", ask("POST /x"), closes_after(b""), (fails(502),)),
    Row("upstream closes in its headers", ask("GET /x"), closes_after(OK[:20]), (fails(502),)),
    Row("upstream speaks no HTTP", ask("GET /x"), b"SSH-2.0-x\r\n\r\n", (fails(502),)),
    Row("upstream switches protocols", ask("GET /x"), says("HTTP/1.1 101 X"), (fails(502),)),
    Row("upstream with a status of its own", ask("GET /x"), says("HTTP/1.1 999 X"), (fails(502),)),
    Row(
        "upstream with an invalid length",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Length: two", b"ok"),
        (fails(502),),
    ),
    Row(
        "upstream with two lengths",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 3", b"ok"),
        (fails(502),),
    ),
    # (Where two readers may see the end of an answer differently, the next may be a forged one.)
    Row(
        "upstream with its length twice",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 2", b"ok"),
        (fails(502),),
    ),
    Row(
        "upstream with a length and chunks",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked", chunks(b"ok")),
        (fails(502),),
    ),
    Row(
        "upstream with a length that ends in a byte beyond ASCII",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nContent-Length: 2\xa0", b"ok"),
        (fails(502),),
    ),
    Row(
        "upstream with lines that end with a mere line feed",
        ask("GET /x"),
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok",
        (fails(502),),
    ),
    Row(
        "upstream with a folded header",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nX-A: a\n  b\nContent-Length: 2", b"ok"),
        (fails(502),),
    ),
    Row(
        "upstream with a control character in a header",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nX-A: a\x01b\nContent-Length: 2", b"ok"),
        (fails(502),),
    ),
    Row(
        "upstream with headers without end",
        ask("GET /x"),
        says("HTTP/1.1 200 OK\nX-A: " + "a" * 400_000, b"ok"),
        (fails(502),),
    ),
    Row("upstream dies in a body of known length", ask("GET /x"), closes_after(LENGTH), (cut,)),
    Row("upstream dies between chunks", ask("GET /x"), closes_after(CHUNKED), (cut,)),
    Row("upstream dies in a chunk", ask("GET /x"), closes_after(CHUNKED + b"ff\r\nxx"), (cut,)),
    Row("upstream sends an invalid chunk", ask("GET /x"), closes_after(CHUNKED + b"zz"), (cut,)),
    Row("upstream resets in its body", ask("GET /x"), resets_after(LENGTH), (cut,)),
    Row("upstream resets between chunks", ask("GET /x"), resets_after(CHUNKED), (cut,)),
    Row(
        "upstream is silent",
        ask("GET /x"),
        silent_after(b""),
        (fails(504),),
        {"timeouts": QUICK},
    ),
    Row(
        "upstream falls silent in its body",
        ask("GET /x"),
        silent_after(CHUNKED),
        (cut,),
        {"timeouts": QUICK},
    ),
]

SMUGGLED = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
BAD = [
    Row(
        "both lengths",
        ask("POST /x", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        checks=(refused_or_clean,),
    ),
    Row(
        "two lengths",
        ask("POST /x", "Content-Length: 5", "Content-Length: 0", body=b"hello"),
        checks=(refused,),
    ),
    Row(
        "an invalid length",
        ask("POST /x", "Content-Length: 5x", body=b"hello"),
        checks=(refused,),
    ),
    Row("a length below zero", ask("POST /x", "Content-Length: -1"), checks=(refused,)),
    Row(
        "a length with a sign",
        ask("POST /x", "Content-Length: +5", body=b"hello"),
        checks=(refused,),
    ),
    Row(
        "an unknown transfer encoding",
        ask("POST /x", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        checks=(refused,),
    ),
    Row(
        "chunked twice",
        ask("POST /x", "Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
        checks=(refused,),
    ),
    Row("a bare CR in a header", ask("GET /x", "X-A: a\rX-Evil: 1"), checks=(refused,)),
    Row("a NUL in a header", ask("GET /x", "X-A: a\x00b"), checks=(refused,)),
    Row(
        "a space before the colon",
        ask("POST /x", "Content-Length : 5", body=b"hello"),
        checks=(refused,),
    ),
    Row("an invalid header name", ask("GET /x", "X(A): 1"), checks=(refused,)),
    Row("two hosts", ask("GET /x", "Host: a", "Host: b"), checks=(refused,)),
    Row(
        "headers without end",
        ask("GET /x", *[f"X-{i}: {'a' * 900}" for i in range(90)]),
        checks=(refused,),
    ),
    Row(
        "an invalid chunk size",
        ask("POST /x", "Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n0\r\n\r\n"),
        head_only(b""),
        (
            lambda at, got: (
                None if got.answer is None or got.answer.status >= 400 else pytest.fail(str(got))
            ),
        ),
    ),
    Row(
        "a WebSocket of an unknown version",
        ask(
            "GET /x",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 7",
        ),
        checks=(refused,),
    ),
    Row(
        "a WebSocket by POST",
        ask("POST /x", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0"),
        checks=(refused,),
    ),
]

ROWS = [*METHODS, *BODIES, *HEADERS, *PATHS, *ANSWERS, *FAILURES, *BAD]


def test_the_table_has_no_row_twice() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60


def sending(answer: bytes) -> Handler:
    async def handler(line: Line) -> None:
        while True:
            await line.request()
            await line.send(answer)

    return handler


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_row_of_the_table_holds(frontend: Frontend, row: Row) -> None:
    handler = sending(row.answer) if isinstance(row.answer, bytes) else row.answer
    async with behind(frontend, handler, base=row.base, **row.options) as at:
        caller = await at.caller()
        got = await converse(caller, row.request, row.request.split(b" ", 1)[0].decode())
        caller.leave()
        for check in row.checks:
            check(at, got)
