"""`InjectKey`: any app behind a key pool."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import Any

import pytest

from asgi_aiproxy import (
    Authenticate,
    ConfigurationError,
    InjectKey,
    Key,
    KeyPool,
    PassthroughProxy,
    Principal,
    lifespan,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.principal import SCOPE_KEY
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses

pytestmark = pytest.mark.anyio

TOKEN = "gateway-token"


class App:
    """An app that keeps its scopes, and answers as configured."""

    def __init__(self, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        self.scopes: list[Any] = []
        self.status = status
        self.headers = headers
        self.entered = 0

    async def __aenter__(self) -> App:
        self.entered += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.entered -= 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        if self.status == 0:
            raise RuntimeError("broken")
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": b"ok"})

    @property
    def seen(self) -> dict[str, str]:
        """The headers of the last request."""
        return {name.decode(): value.decode() for name, value in self.scopes[-1]["headers"]}


def pool(**options: Any) -> KeyPool:
    return KeyPool([Key("sk-1", id="1"), Key("sk-2", id="2")], **options)


async def test_the_key_replaces_the_callers_credential() -> None:
    app = App()
    injected = InjectKey(app, pool=pool())
    headers = {"authorization": f"Bearer {TOKEN}", "x-api-key": TOKEN, "accept": "text/plain"}
    answer = await asgi.request(injected, "GET", f"/x?key={TOKEN}&a=1", headers=headers)
    assert answer.status == 200
    assert app.seen == {"authorization": "Bearer sk-1", "accept": "text/plain"}
    assert app.scopes[-1]["query_string"] == b"a=1"
    assert answer.header("x-auth-id") == "1"
    await asgi.request(injected, "GET", "/x")
    assert app.seen == {"authorization": "Bearer sk-2"}


@pytest.mark.parametrize(
    ("options", "header", "value"),
    [
        ({"header": "X-Api-Key"}, "x-api-key", "sk-1"),
        ({"header": "X-Token", "scheme": "Key"}, "x-token", "Key sk-1"),
        ({"scheme": ""}, "authorization", "sk-1"),
        ({"scheme": "Token"}, "authorization", "Token sk-1"),
    ],
)
async def test_the_key_is_put_where_the_app_expects_it(
    options: dict[str, str], header: str, value: str
) -> None:
    app = App()
    headers = {header: "from the caller"}
    await asgi.request(InjectKey(app, pool=pool(), **options), "GET", "/x", headers=headers)
    assert app.seen == {header: value}


async def test_the_health_of_a_key_follows_from_its_response() -> None:
    keys = pool()
    app = App(429, (b"retry-after", b"60"), (b"x-auth-id", b"theirs"))
    answer = await asgi.request(InjectKey(app, pool=keys), "GET", "/x")
    assert answer.status == 429
    assert [v for name, v in answer.headers if name == "x-auth-id"] == ["2"]
    assert answer.header("retry-after") == "60"
    assert len(app.scopes) == 2  # each key was tried
    for status in await keys.status():
        assert status.health == "cooling"
        assert 50 < status.cooldown_seconds <= 60


class Limited:
    """An app that reads the whole body, and answers 429 for `sk-1`."""

    def __init__(self, status: int = 429) -> None:
        self.bodies: list[bytes] = []
        self.status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        ours = dict(scope["headers"])[b"authorization"] == b"Bearer sk-1"
        start = {"type": "http.response.start", "status": self.status if ours else 200}
        await send({**start, "headers": []})
        await send({"type": "http.response.body", "body": b"no" if ours else b"yes"})


@pytest.mark.parametrize("status", [429, 401, 402])
async def test_a_refused_request_is_repeated_unchanged_with_another_key(
    status: int,
) -> None:
    app, keys = Limited(status), pool()
    wrapped = InjectKey(app, pool=keys)
    async with asgi.opened(wrapped, "POST", "/x") as exchange:
        for number in range(5):
            exchange.send_body(b"%d" % number * 1000, more=number < 4)
        answer = await exchange.answer()
    assert (answer.status, answer.body, answer.header("x-auth-id")) == (200, b"yes", "2")
    whole = b"".join(b"%d" % number * 1000 for number in range(5))
    assert app.bodies == [whole, whole]
    states = {key.id: key for key in await keys.status()}
    assert states["1"].health == ("cooling" if status == 429 else "quarantined")
    assert {key.in_flight for key in states.values()} == {0}


async def test_a_request_with_a_long_body_is_not_repeated() -> None:
    app, keys = Limited(), pool()
    wrapped = InjectKey(app, pool=keys, max_replay=10)
    assert (await asgi.request(wrapped, "POST", "/x", b"x" * 11)).status == 429
    assert app.bodies == [b"x" * 11]
    assert {key.in_flight for key in await keys.status()} == {0}


async def test_a_selected_key_is_not_replaced_by_another() -> None:
    app = Limited()
    wrapped = InjectKey(app, pool=pool())
    answer = await asgi.request(wrapped, "POST", "/x", b"x", headers={"x-auth-id": "1"})
    assert (answer.status, len(app.bodies)) == (429, 1)


async def test_a_path_that_refuses_all_keys_is_tried_with_a_few_only() -> None:
    keys = KeyPool([Key(f"sk-{n}", id=str(n)) for n in range(20)])
    app = App(401)
    assert (await asgi.request(InjectKey(app, pool=keys), "GET", "/admin")).status == 401
    assert len(app.scopes) == 3


async def test_an_app_that_breaks_after_a_refusal_leaves_no_key_in_use() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 429, "headers": []})
        raise RuntimeError("broken")

    keys = pool()
    with pytest.raises(RuntimeError):
        await asgi.request(InjectKey(app, pool=keys), "GET", "/x")
    assert {key.in_flight for key in await keys.status()} == {0}


class PartlyProtectedApp:
    """An app that accepts some keys only, and none of them at `/admin`."""

    def __init__(self, *known: str) -> None:
        self.known = known

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        key = dict(scope["headers"])[b"authorization"].decode().partition(" ")[2]
        status = 200 if key in self.known and scope["path"] != "/admin" else 401
        await App(status)(scope, receive, send)


async def health(keys: KeyPool) -> dict[str, str]:
    return {key.id: key.health.value for key in await keys.status()}


async def test_a_key_that_is_refused_where_another_is_not_cools_down() -> None:
    keys = pool()
    app = InjectKey(PartlyProtectedApp("sk-2"), pool=keys)
    statuses = [(await asgi.request(app, "GET", "/x")).status for _ in range(5)]
    assert statuses == [200] * 5
    assert await health(keys) == {"1": "quarantined", "2": "ok"}


@pytest.mark.parametrize("named", [False, True])
async def test_a_path_where_all_keys_are_refused_cools_none_down(named: bool) -> None:
    keys = pool()
    app = InjectKey(PartlyProtectedApp("sk-1", "sk-2"), pool=keys)
    for round_ in range(3):
        for number in range(10):
            headers = {"x-auth-id": str(1 + number // 5)} if named else {}
            await asgi.request(app, "GET", "/admin", headers=headers)
        answer = await asgi.request(app, "GET", "/x")
        assert answer.status == 200, round_
    assert "ok" in (await health(keys)).values()


async def test_the_only_key_is_not_cooled_down_by_refusals() -> None:
    keys = KeyPool([Key("sk-1", id="1")])
    app = InjectKey(PartlyProtectedApp("sk-1"), pool=keys)
    for _ in range(10):
        assert (await asgi.request(app, "GET", "/admin")).status == 401
    assert (await asgi.request(app, "GET", "/x")).status == 200


async def test_a_key_whose_limit_is_used_up_cools_down_before_it_is_refused() -> None:
    keys = pool()
    spent = (b"x-ratelimit-remaining-requests", b"0"), (b"x-ratelimit-reset-requests", b"40s")
    answer = await asgi.request(InjectKey(App(200, *spent), pool=keys), "GET", "/x")
    assert answer.status == 200
    status = {key.id: key for key in await keys.status()}
    assert status["1"].health == "cooling"
    assert 30 < status["1"].cooldown_seconds <= 40
    assert status["2"].health == "ok"


async def test_when_no_key_is_usable_the_error_has_the_time_to_wait() -> None:
    keys = pool()
    for _ in range(2):
        await asgi.request(InjectKey(App(429, (b"retry-after", b"60")), pool=keys), "GET", "/x")
    app = App()
    answer = await asgi.request(InjectKey(app, pool=keys), "GET", "/x")
    assert answer.status == 429
    said = answer.json["error"]["message"]
    assert "the pool 'default' is available: 2 over a limit (429); retry in " in said
    assert 50 < int(answer.header("retry-after") or 0) <= 61
    assert app.scopes == []


async def test_a_caller_may_select_the_key() -> None:
    app = App()
    injected = InjectKey(app, pool=pool())
    answer = await asgi.request(injected, "GET", "/x", headers={"x-auth-id": "2"})
    assert (answer.header("x-auth-id"), app.seen) == ("2", {"authorization": "Bearer sk-2"})
    answer = await asgi.request(injected, "GET", "/x", headers={"x-auth-id": "nobody"})
    assert answer.status == 401


async def test_calls_of_one_session_get_the_same_key() -> None:
    app = App()
    injected = InjectKey(app, pool=pool())
    used = set()
    for _ in range(5):
        await asgi.request(injected, "GET", "/x", headers={"x-session-affinity": "s"})
        used.add(app.seen["authorization"])
    assert len(used) == 1


async def test_a_caller_restricted_to_keys_gets_those() -> None:
    app = App()
    who = {SCOPE_KEY: Principal("ada", keys=("2",))}
    for _ in range(3):
        await asgi.request(InjectKey(app, pool=pool()), "GET", "/x", **who)
        assert app.seen == {"authorization": "Bearer sk-2"}


async def test_a_key_is_released_although_the_app_fails() -> None:
    keys = pool()
    async with asgi.opened(InjectKey(App(0), pool=keys), "GET", "/x") as exchange:
        with pytest.raises(RuntimeError, match="broken"):
            await exchange.ended()
    assert {key.in_flight for key in await keys.status()} == {0}


async def test_other_scopes_pass_and_the_app_is_opened() -> None:
    app = App()
    injected = InjectKey(app, pool=pool())
    async with lifespan(injected)():
        assert app.entered == 1
    assert app.entered == 0
    async with asgi.Exchange(injected, {"type": "mystery"}) as exchange:
        await exchange.ended()
    assert app.scopes[-1]["type"] == "mystery"


async def test_a_websocket_without_a_key_is_refused() -> None:
    keys = KeyPool([Key("sk-1", concurrency=1)])
    with keys.acquire_nowait():
        scope = asgi.scope_of("GET", "/x", type="websocket")
        async with asgi.Exchange(InjectKey(App(), pool=keys), scope) as exchange:
            exchange._in.put_nowait({"type": "websocket.connect"})
            assert (await exchange.message())["type"] == "websocket.close"
            await exchange.ended()


async def test_a_websocket_does_not_show_the_key() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-debug", b"it is pool-key-1")]})
        await send({"type": "websocket.close", "code": 4001, "reason": "no pool-key-1"})

    scope = asgi.scope_of("GET", "/x", type="websocket")
    async with asgi.Exchange(InjectKey(app, pool=KeyPool(["pool-key-1"])), scope) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        accept, close = await exchange.message(), await exchange.message()
        assert (b"x-debug", b"it is [key]*****") in accept["headers"]
        assert (close["code"], close["reason"]) == (4001, "no [key]*****")
        await exchange.ended()


def test_an_invalid_pool_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="KeyPool"):
        InjectKey(App(), pool=["sk-1"])  # type: ignore[arg-type]
    assert "sk-1" not in repr(InjectKey(App(), pool=pool()))


async def test_an_internal_app_with_auth_and_rotation_in_one_line() -> None:
    upstream = Upstream(refuses(429), answers(b"inside"))
    proxy = PassthroughProxy("http://internal:9000/base", transport=upstream.transport)
    keys = pool()
    app = Authenticate(InjectKey(proxy, pool=keys), verify=static_tokens({TOKEN: "ada"}))
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert (await asgi.request(app, "GET", "/x")).status == 401
    assert upstream.requests == []
    answer = await asgi.request(app, "GET", f"/x?key={TOKEN}&y=1", headers=headers)
    assert (answer.status, answer.body) == (200, b"inside")
    assert upstream.keys == ["sk-1", "sk-2"]
    urls = [str(request.url) for request in upstream.requests]
    assert urls == ["http://internal:9000/base/x?y=1"] * 2


async def test_a_credential_for_the_gateway_is_not_forwarded() -> None:
    upstream = Upstream(answers(b"inside"))
    proxy = PassthroughProxy("http://internal:9000", transport=upstream.transport)
    app = Authenticate(proxy, verify=static_tokens({TOKEN: "ada"}))
    headers = {"authorization": f"Bearer {TOKEN}", "cookie": f"t={TOKEN}", "x-own": "1"}
    assert (await asgi.request(app, "GET", "/x", headers=headers)).status == 200
    (request,) = upstream.requests
    assert TOKEN not in str(request.headers)
    assert request.headers["x-own"] == "1"


# ── a key in a compressed error ──────────────────────────────────────────────

SECRET = "sk-a-secret-of-the-pool"


def quoting(
    body: bytes, *headers: tuple[bytes, bytes], status: int = 400, size: int = 7
) -> InjectKey:
    """An app that answers with this body, in pieces of `size` bytes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"].replace("websocket", "websocket.http") + ".response"
        await send({"type": f"{kind}.start", "status": status, "headers": list(headers)})
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await send({"type": f"{kind}.body", "body": piece, "more_body": True})
        await send({"type": f"{kind}.body"})

    return InjectKey(app, pool=KeyPool([Key(SECRET, id="1")]))


ERROR = b'{"error":{"message":"the key ' + SECRET.encode() + b' is invalid"}}'
CODINGS = {
    b"gzip": gzip.compress(ERROR, mtime=0),
    b"deflate": zlib.compress(ERROR),
    b"gzip, gzip": gzip.compress(gzip.compress(ERROR), mtime=0),
    b"GZIP": gzip.compress(ERROR, mtime=0),
    b"identity": ERROR,
}


@pytest.mark.parametrize("status", [307, 400, 401, 429, 500])
@pytest.mark.parametrize("coding", CODINGS)
async def test_the_key_is_redacted_from_a_compressed_error(coding: bytes, status: int) -> None:
    body = CODINGS[coding]
    length = (b"content-length", b"%d" % len(body))
    app = quoting(body, (b"content-encoding", coding), length, (b"x-a", b"1"), status=status)
    answer = await asgi.request(app, "POST", "/x")
    assert answer.status == status
    assert answer.body == ERROR.replace(SECRET.encode(), b"[key]".ljust(len(SECRET), b"*"))
    assert answer.header("content-encoding") in (None, "identity")
    assert answer.header("content-length") == str(len(ERROR))
    assert answer.header("x-a") == answer.header("x-auth-id") == "1"


async def test_the_key_is_redacted_from_a_compressed_refusal_of_a_handshake() -> None:
    app = quoting(gzip.compress(ERROR, mtime=0), (b"content-encoding", b"gzip"), status=403)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/x", "headers": [], "query_string": b""}
    await app(scope, lambda: None, send)
    assert [message["type"].rpartition(".")[2] for message in sent] == ["start", "body"]
    assert SECRET.encode() not in sent[1]["body"]
    assert b"is invalid" in sent[1]["body"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", b"not gzip " + SECRET.encode()),
        (b"gzip", gzip.compress(ERROR, mtime=0)[:-9]),
        (b"compress", ERROR),
        (b"gzip", gzip.compress(ERROR + b" " * 300_000, mtime=0)),
        (b"gzip", gzip.compress(random.Random(1).randbytes(300_000) + ERROR, mtime=0)),
        (b"gzip, gzip, gzip, gzip", ERROR),
    ],
)
async def test_a_compressed_error_that_cannot_be_decoded_has_no_body(
    coding: bytes, body: bytes
) -> None:
    app = quoting(body, (b"content-encoding", coding), size=4096)
    answer = await asgi.request(app, "POST", "/x")
    assert answer.status == 400
    assert answer.body == b""
    assert answer.header("content-encoding") is None
    assert answer.header("content-length") == "0"


async def test_the_headers_of_a_response_to_head_stay() -> None:
    app = quoting(b"", (b"content-encoding", b"gzip"), (b"content-length", b"70"), status=404)
    answer = await asgi.request(app, "HEAD", "/x")
    assert answer.header("content-encoding") == "gzip"
    assert answer.header("content-length") == "70"


async def test_a_compressed_success_passes_byte_for_byte() -> None:
    body = gzip.compress(b"all is well", mtime=0)
    answer = await asgi.request(
        quoting(body, (b"content-encoding", b"gzip"), status=200), "GET", "/x"
    )
    assert answer.body == body
    assert answer.header("content-encoding") == "gzip"
