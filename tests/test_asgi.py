"""Paths below mounts in the forms of hosts and servers, bodies, lifespan, plain responses."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given, strategies as st

from asgi_aiproxy import _asgi
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy.errors import APIError, ErrorKind
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio


def local(path: str, root: str = "", raw: str | None = "") -> str | None:
    """The path below the mount; `raw` is the target that was sent, by default the path itself."""
    scope: dict[str, Any] = {"type": "http", "path": path, "root_path": root}
    if raw is not None:
        scope["raw_path"] = (raw or quote(path, safe="/:")).encode()
    return _asgi.local_path(scope)


CHAT = "/v1/chat/completions"

# (host, path, root_path, target as it was sent, what is below the mount at /ai)
HOSTS = [
    # Not mounted: bare under a server, or Starlette's Mount("/", app).
    ("bare", CHAT, "", CHAT, CHAT),
    ("bare, /", "/", "", "/", "/"),
    ("bare, no path at all", "", "", "", "/"),
    ("bare, two slashes", "//v1/models", "", "//v1/models", "//v1/models"),
    ("bare, slash at the end", "/v1/models/", "", "/v1/models/", "/v1/models/"),
    ("bare, %2F", "/v1/models/org/m x", "", "/v1/models/org%2Fm%20x", "/v1/models/org%2Fm%20x"),
    ("bare, %2F at the end", "/v1/models/a/", "", "/v1/models/a%2F", "/v1/models/a%2F"),
    ("hypercorn and daphne, no leading slash", "v1/models", "", "v1/models", None),
    ("OPTIONS *", "*", "", "*", None),
    ("a whole URL as target", "http://host/v1/models", "", "http://host/v1/models", None),
    # Starlette and FastAPI: the whole path, and the mount in root_path.
    ("starlette", "/ai" + CHAT, "/ai", "/ai" + CHAT, CHAT),
    ("starlette, mount alone", "/ai/", "/ai", "/ai/", "/"),
    ("starlette, two slashes", "/ai//v1/models", "/ai", "/ai//v1/models", "//v1/models"),
    ("starlette, nested mounts", "/a/b/v1/models", "/a/b", "/a/b/v1/models", "/v1/models"),
    ("starlette, %2F", "/ai/v1/models/o/m", "/ai", "/ai/v1/models/o%2Fm", "/v1/models/o%2Fm"),
    ("starlette, %20 in the mount", "/a i/v1/models", "/a i", "/a%20i/v1/models", "/v1/models"),
    ("starlette, letters encoded", "/ai/v1/models", "/ai", "/%61i/v1/%6Dodels", "/v1/%6Dodels"),
    ("starlette, a mount called /v1", "/v1" + CHAT, "/v1", "/v1" + CHAT, CHAT),
    ("starlette, the mount's name again", "/ai/ai/x", "/ai", "/ai/ai/x", "/ai/x"),
    # uvicorn --root-path /api (also: FastAPI(root_path="/api") behind a proxy that does not strip).
    ("uvicorn --root-path, bare", "/api" + CHAT, "/api", "/api" + CHAT, CHAT),
    ("uvicorn --root-path, starlette", "/api/ai" + CHAT, "/api/ai", "/api/ai" + CHAT, CHAT),
    ("uvicorn --root-path, %2F", "/api/ai/v1/models/o/m", "/api/ai", "/api/ai/v1/models/o%2Fm",
     "/v1/models/o%2Fm"),
    ("uvicorn --root-path /api/", "/api//v1/models", "/api/", "/api//v1/models", "/v1/models"),
    # hypercorn --root-path, granian --url-path-prefix, FastAPI(root_path=...): the proxy strips.
    ("stripped, bare", CHAT, "/api", CHAT, CHAT),
    ("stripped, starlette", "/ai" + CHAT, "/api/ai", "/ai" + CHAT, CHAT),
    ("stripped, deep", "/ai" + CHAT, "/x/y/api/ai", "/ai" + CHAT, CHAT),
    ("stripped, mount of two", "/a/b" + CHAT, "/api/a/b", "/a/b" + CHAT, CHAT),
    ("stripped, %2F", "/ai/v1/models/o/m", "/api/ai", "/ai/v1/models/o%2Fm", "/v1/models/o%2Fm"),
    ("stripped, slash behind", "/ai" + CHAT, "/api//ai", "/ai" + CHAT, CHAT),
    ("root without a slash", "/ai" + CHAT, "ai", "/ai" + CHAT, CHAT),
    ("root of a slash", CHAT, "/", CHAT, CHAT),
    # Litestar: the mount cut off without a trace, and a slash added.
    ("litestar", CHAT + "/", "", "/ai" + CHAT, CHAT),
    ("litestar, mount alone", "/", "", "/ai", "/"),
    ("litestar, mount and slash", "/", "", "/ai/", "/"),
    ("litestar, slash sent", "/v1/models/", "", "/ai/v1/models/", "/v1/models/"),
    ("litestar, slashes merged", "/v1/models/", "", "/ai//v1/models", "/v1/models"),
    ("litestar, %2F", "/v1/models/o/m/", "", "/ai/v1/models/o%2Fm", "/v1/models/o%2Fm"),
    ("litestar, %20", "/v1/models/a b/", "", "/ai/v1/models/a%20b", "/v1/models/a%20b"),
    ("litestar, root_path", CHAT + "/", "/api", "/ai" + CHAT, CHAT),
    ("litestar, uvicorn --root-path", CHAT + "/", "/api", "/api/ai" + CHAT, CHAT),
    ("litestar, no boundary", "v1/models/", "", "/aiv1/models", None),
    ("litestar, no boundary", "x/v1/", "", "/aix/v1", None),
    # Quart: hypercorn's dispatcher, and a wrapped asgi_app that checks itself.
    ("dispatcher", "/ai" + CHAT, "/ai", "/ai" + CHAT, CHAT),
    ("dispatcher, mount alone", "/ai", "/ai", "/ai", "/"),
    ("dispatcher, two slashes", "/ai//v1/models", "/ai", "/ai//v1/models", "//v1/models"),
    ("dispatcher, no boundary", "/aix/v1", "/ai", "/aix/v1", "/aix/v1"),
    ("dispatcher, --root-path, stripped", "/ai" + CHAT, "/api/ai", "/ai" + CHAT, CHAT),
    # BlackSheep: a root of "/a" for "/aix/v1".
    ("blacksheep", "/ai" + CHAT, "/ai", "/ai" + CHAT, CHAT),
    ("blacksheep, no boundary", "/aix/v1/models", "/a", "/aix/v1/models", "/aix/v1/models"),
    # Our own mount, whatever is before it.
    ("mount", "/ai" + CHAT, "/api/ai", "/ai" + CHAT, CHAT),
    # Servers and test clients that send no raw_path.
    ("no raw_path", "/ai" + CHAT, "/ai", None, CHAT),
    ("no raw_path, encoded again", "/v1/models/a%20b c", "", None, "/v1/models/a%2520b%20c"),
    ("no raw_path, gemini", "/v1beta/models/g:generateContent", "", None,
     "/v1beta/models/g:generateContent"),
    # A host that rewrites paths: what it says goes.
    ("rewritten", "/v1/models", "", "/llm/list", "/v1/models"),
    ("rewritten, below a mount", "/ai/v1/models/a b", "/ai", "/llm/%2F", "/v1/models/a%20b"),
    ("a query in raw_path", "/v1/models", "", "/v1/models?x=/y", "/v1/models"),
]  # fmt: skip


@pytest.mark.parametrize(("host", "path", "root", "sent", "below"), HOSTS)
def test_the_path_below_a_mount_whatever_the_host(
    host: str, path: str, root: str, sent: str | None, below: str | None
) -> None:
    assert local(path, root, sent) == below, host


def test_a_scope_without_root_path_is_at_the_root() -> None:
    assert _asgi.local_path({"path": "/v1/models"}) == "/v1/models"
    assert _asgi.local_path({"path": "/v1/models", "root_path": None}) == "/v1/models"


SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=8)
PATHS = st.lists(SEGMENT, min_size=1, max_size=5)
MOUNT = st.lists(st.sampled_from(["ai", "api", "v1", "a b", "ü"]), max_size=3)


def encoded(segments: list[str], how: str) -> str:
    return "".join("/" + quote(segment, safe=how) for segment in segments)


@given(
    outer=MOUNT, mount=MOUNT, below=PATHS, stripped=st.booleans(), safe=st.sampled_from(["", ":@"])
)
def test_what_is_below_a_mount_arrives_as_it_was_sent(
    outer: list[str], mount: list[str], below: list[str], stripped: bool, safe: str
) -> None:
    tail = encoded(below, safe)
    before = encoded(mount if stripped else [*outer, *mount], safe)
    path, root = unquote(before + tail), unquote(encoded([*outer, *mount], ""))
    if stripped:  # another end of root_path may match by chance: then it is ambiguous
        segments = [*outer, *mount]
        ends = ["/" + "/".join(segments[at:]) for at in range(len(outer))]
        assume(not any(path == end or path.startswith(end + "/") for end in ends))
    assert local(path, root, before + tail) == tail
    assert local(path, root, None) == quote(unquote(tail), safe=_asgi._PATH_CHARACTERS)


@given(mount=MOUNT, below=PATHS)
def test_litestars_paths_give_the_same(mount: list[str], below: list[str]) -> None:
    assume(below[-1] and all(unquote(segment) for segment in below))
    tail = encoded(below, "")
    assume(not unquote(tail).endswith("/"))
    assert local(unquote(tail) + "/", "", encoded(mount, "") + tail) == tail


@given(path=st.text(max_size=20), root=st.text(max_size=10), raw=st.binary(max_size=20))
def test_any_path_is_handled(path: str, root: str, raw: bytes) -> None:
    for scope in (
        {"path": path, "root_path": root, "raw_path": raw},
        {"path": path.encode(errors="replace").decode(), "root_path": root},
    ):
        try:
            below = _asgi.local_path(scope)
        except UnicodeEncodeError:
            assert any("\ud800" <= letter <= "\udfff" for letter in path)  # no server makes those
        else:
            assert below is None or below.startswith("/")


def test_a_long_path_costs_no_more_than_its_length() -> None:
    # 16,000 slashes that never fit: with a search from every one of them this takes a minute.
    sent = "/ai" + "/%41" * 16_000
    below = "/B" * 15_000
    assert (local("/ai" + below, "/ai", sent) == below) is True


# ── bodies ───────────────────────────────────────────────────────────────────


def body_scope(length: str | None = None) -> dict[str, Any]:
    headers = [(b"content-length", length.encode("latin-1"))] if length is not None else []
    return {"type": "http", "headers": headers}


def receiving(*pieces: Any) -> Any:
    """A `receive` that returns these pieces; an empty tuple is a disconnect."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        assert left, "read on after the end"
        piece = left.pop(0)
        if piece == ():
            return {"type": "http.disconnect"}
        if isinstance(piece, dict):
            return piece
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return receive


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([b""], b""),
        ([b"abc"], b"abc"),
        ([b"a", b"", b"bc"], b"abc"),
        ([b"a", b"b", b""], b"ab"),
        ([{"type": "http.request"}], b""),
        ([{"type": "http.request", "more_body": True}, b"x"], b"x"),
        ([b"x" * 10], b"x" * 10),
        ([b"x" * 5, b"x" * 5], b"x" * 10),
    ],
)
async def test_a_body_is_read_to_its_end(pieces: list[Any], body: bytes) -> None:
    assert await _asgi.read_body(body_scope(), receiving(*pieces), 10) == body


@pytest.mark.parametrize("pieces", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 6, b"x" * 5, b"x"]])
async def test_a_body_above_the_limit_is_refused_as_soon_as_it_is(pieces: list[bytes]) -> None:
    with pytest.raises(APIError) as caught:
        await _asgi.read_body(body_scope(), receiving(*pieces), 10)
    assert (caught.value.kind, caught.value.status) == (ErrorKind.TOO_LARGE, 413)


async def test_a_body_with_a_declared_length_above_the_limit_is_not_read() -> None:
    for length in ("11", "9" * 19):
        with pytest.raises(APIError):
            await _asgi.read_body(body_scope(length), receiving(), 10)


@pytest.mark.parametrize("length", ["", "x", "-1", "1.5", "\xb2", "9" * 5000, "10"])
async def test_an_invalid_content_length_is_ignored(length: str) -> None:
    assert await _asgi.read_body(body_scope(length), receiving(b"x" * 10), 10) == b"x" * 10


@pytest.mark.parametrize("pieces", [[()], [b"a", ()], [b"a", b"b", ()]])
async def test_a_disconnect_before_the_end_of_the_body_raises_client_gone(
    pieces: list[Any],
) -> None:
    given = [
        piece if piece == () else {"type": "http.request", "body": piece, "more_body": True}
        for piece in pieces
    ]
    with pytest.raises(ClientGoneError):
        await _asgi.read_body(body_scope(), receiving(*given), 10)


# ── lifespan, answers ────────────────────────────────────────────────────────


class Part:
    """An async context manager that notes what happens to it."""

    def __init__(self, *, fails: str = "") -> None:
        self.log: list[str] = []
        self.fails = fails

    async def __aenter__(self) -> Part:
        self.log.append("in")
        if self.fails == "in":
            raise OSError("no entry")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.log.append("out")
        if self.fails == "out":
            raise OSError("stuck")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await _asgi.serve_lifespan(self, receive, send)


async def test_lifespan_opens_and_closes() -> None:
    part = Part()
    async with asgi.lifespan(part):
        assert part.log == ["in"]
    assert part.log == ["in", "out"]


@pytest.mark.parametrize(
    ("fails", "stage", "words"), [("in", "startup", "no entry"), ("out", "shutdown", "stuck")]
)
async def test_a_failing_lifespan_is_reported_to_the_server(
    fails: str, stage: str, words: str
) -> None:
    part = Part(fails=fails)
    async with asgi.Exchange(part, {"type": "lifespan"}) as exchange:
        exchange._in.put_nowait({"type": "lifespan.startup"})
        message = await exchange.message()
        if fails == "out":
            assert message["type"] == "lifespan.startup.complete"
            exchange._in.put_nowait({"type": "lifespan.shutdown"})
            message = await exchange.message()
        assert message == {"type": f"lifespan.{stage}.failed", "message": words}
        with pytest.raises(OSError, match=words):
            await exchange.ended()


async def test_a_server_that_stops_without_shutdown_closes_everything() -> None:
    part = Part()
    async with asgi.Exchange(part, {"type": "lifespan"}) as exchange:
        exchange._in.put_nowait({"type": "lifespan.startup"})
        await exchange.message()
    assert exchange.task is not None
    assert exchange.task.cancelled()
    assert part.log == ["in", "out"]


async def test_an_answer_without_a_client_raises_client_gone() -> None:
    async def send(message: Any) -> None:
        raise OSError

    with pytest.raises(ClientGoneError):
        await _asgi.send_response(send, 200, b"{}", [])


async def test_a_websocket_is_closed_after_its_handshake() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    waiting = asyncio.Event()

    async def receive() -> dict[str, Any]:
        waiting.set()
        return {"type": "websocket.connect"}

    # (As its server can: with an answer, or with a close before any accept, which is a 403.)
    headers = [(b"x-why", b"none")]
    await _asgi.refuse_websocket({}, receive, send, 426, b"{}", headers)
    assert waiting.is_set()
    assert [message["type"] for message in sent] == ["websocket.close"]
    for version, upgrade in {"1.1": [(b"upgrade", b"HTTP/1.1")], "2": []}.items():
        sent.clear()
        scope = {"extensions": {"websocket.http.response": {}}, "http_version": version}
        await _asgi.refuse_websocket(scope, receive, send, 426, b"{}", headers)
        start, body = sent
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 426)
        assert (b"x-why", b"none") in start["headers"]
        assert [pair for pair in start["headers"] if pair[0] == b"upgrade"] == upgrade
        assert body == {"type": "websocket.http.response.body", "body": b"{}"}
