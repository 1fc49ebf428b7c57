"""The same requests through every host, and what hosts do with lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute

from asgi_aiproxy import (
    Authenticate,
    ConfigurationError,
    Dispatcher,
    OpenAIShim,
    ProviderRouter,
    lifespan,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi
from tests.support.hosts import HOSTS, Host, litestar
from tests.support.scripted_upstream import Upstream, answers, chat_stream, streams

pytestmark = pytest.mark.anyio


def gateway(*steps: Any, model: str = "m") -> tuple[OpenAIShim, Upstream]:
    upstream = Upstream(*(steps or (answers(),)))
    provider = OPENAI.using("sk-1")
    router = ProviderRouter({model: provider, "org/model x": provider})
    return OpenAIShim(router, transport=upstream.transport, backoff=0.001), upstream


# ── the same requests everywhere ─────────────────────────────────────────────

# How the server's own root path shows: in the path and in root_path, or in root_path only.
ROOTS = {"no-root": ("", ""), "kept": ("/api", "/api"), "stripped": ("", "/api")}


class Client:
    """Sends requests to a host in the way of a server with one root path."""

    def __init__(self, app: Any, host: Host, root: str) -> None:
        self.app = app
        self.before, self.root_path = ROOTS[root]
        self.mount = host.path

    async def request(self, method: str, path: str, body: Any = b"", **more: Any) -> asgi.Answer:
        """A request below the mount."""
        return await self.outside(method, self.mount + path, body, **more)

    async def outside(self, method: str, path: str, body: Any = b"", **more: Any) -> asgi.Answer:
        """A request to any path of the host."""
        where = self.before + path
        return await asgi.request(self.app, method, where, body, root_path=self.root_path, **more)


MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "m", "messages": MESSAGES}

Step = Callable[[Client, Upstream], Awaitable[None]]


async def models_are_listed(client: Client, upstream: Upstream) -> None:
    answer = await client.request("GET", "/v1/models")
    assert [model["id"] for model in answer.json["data"]] == ["m", "org/model x"]


async def a_model_with_a_slash_is_found(client: Client, upstream: Upstream) -> None:
    answer = await client.request("GET", "/v1/models/org%2Fmodel%20x")
    assert answer.json["id"] == "org/model x"


async def a_chat_is_answered_whole(client: Client, upstream: Upstream) -> None:
    upstream.steps = [answers()]
    answer = await client.request("POST", "/v1/chat/completions?x=1", CHAT)
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    assert upstream.bodies[-1] == CHAT


async def a_chat_is_streamed(client: Client, upstream: Upstream) -> None:
    upstream.steps = [streams()]
    answer = await client.request("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    text = [event["choices"][0]["delta"].get("content", "") for event in answer.events[:-1]]
    assert ("".join(text), answer.events[-1]) == ("Hello", "[DONE]")


async def what_is_not_there_is_a_404_of_ours(client: Client, upstream: Upstream) -> None:
    for path in ("/v1/nothing", "/", "//v1/nothing"):
        answer = await client.request("GET", path)
        assert answer.status == 404
        assert answer.json["error"]["type"] == "invalid_request_error", path


async def a_wrong_method_is_a_405_of_ours(client: Client, upstream: Upstream) -> None:
    for method in ("GET", "PUT", "DELETE", "QUERY"):
        answer = await client.request(method, "/v1/chat/completions")
        assert answer.status == 405, method
        assert answer.json["error"]["type"] == "invalid_request_error"


async def bad_json_is_a_400_of_ours(client: Client, upstream: Upstream) -> None:
    answer = await client.request("POST", "/v1/chat/completions", b"{")
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"


async def what_only_begins_like_the_mount_is_not_ours(client: Client, upstream: Upstream) -> None:
    requested = len(upstream.requests)
    for path in ("x/v1/chat/completions", "v1/chat/completions", "x", "-admin/v1/models"):
        path = f"{client.mount}{path}" if client.mount else f"/{path}"
        if path != "/v1/chat/completions":  # not mounted, that is ours
            answer = await client.outside("POST", path, CHAT)
            assert answer.status in (404, 405), path
    assert len(upstream.requests) == requested


EIGHT: list[Step] = [
    models_are_listed,
    a_model_with_a_slash_is_found,
    a_chat_is_answered_whole,
    a_chat_is_streamed,
    what_is_not_there_is_a_404_of_ours,
    a_wrong_method_is_a_405_of_ours,
    bad_json_is_a_400_of_ours,
    what_only_begins_like_the_mount_is_not_ours,
]


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("started", [True, False], ids=["lifespan", "no-lifespan"])
@pytest.mark.parametrize("host", HOSTS, ids=str)
async def test_the_same_requests_through_every_host(host: Host, started: bool, root: str) -> None:
    ai, upstream = gateway()
    app = host.build({host.path: ai})
    client = Client(app, host, root)
    life: AbstractAsyncContextManager[Any] = asgi.lifespan(app) if started else nullcontext()
    async with life:
        assert (ai._users > 0) is started
        if root == "kept" and not host.kept:
            # The host's own limit: it never finds its mount, with our app or any other.
            answer = await client.request("GET", "/v1/models")
            assert answer.status == 404
            assert b"invalid_request_error" not in answer.body
            return
        for step in EIGHT:
            await step(client, upstream)
    assert ai._users == 0


MOUNTING = [host for host in HOSTS if host.path]


@pytest.mark.parametrize("host", MOUNTING, ids=str)
async def test_the_hosts_own_routes_stay_its_own(host: Host) -> None:
    ai, _ = gateway()
    app = host.build({host.path: ai})
    async with asgi.lifespan(app):
        answer = await asgi.request(app, "GET", "/hello")
        assert (answer.status, answer.body) == (200, b"hello")
        answer = await asgi.request(app, "GET", "/nothing")
        assert answer.status == 404
        assert b"invalid_request_error" not in answer.body
        answer = await asgi.request(app, "GET", "/airports/lhr")
        # A host that matches by letters gives us what is its own: then we say that it is not ours.
        assert answer.status == (200 if host.bounded else 404)


@pytest.mark.parametrize("host", MOUNTING, ids=str)
async def test_two_instances_live_side_by_side(host: Host) -> None:
    (one, first), (two, second) = gateway(model="one"), gateway(model="two")
    app = host.build({"/one": one, "/two": two})
    async with asgi.lifespan(app):
        for path, model in (("/one", "one"), ("/two", "two"), ("/one", "one")):
            answer = await asgi.request(app, "GET", f"{path}/v1/models")
            assert answer.json["data"][0]["id"] == model
            assert (await asgi.chat(app, f"{path}/v1/chat/completions", model=model)).status == 200
        answer = await asgi.chat(app, "/two/v1/chat/completions", model="one")
        assert answer.status == 404
    assert (len(first.requests), len(second.requests)) == (2, 1)
    assert (one._users, two._users) == (0, 0)


@pytest.mark.parametrize("host", MOUNTING, ids=str)
async def test_a_gateway_behind_a_token_works_in_every_host(host: Host) -> None:
    ai, _ = gateway()
    app = host.build({host.path: Authenticate(ai, verify=static_tokens({"tok": "me"}))})
    async with asgi.lifespan(app):
        assert ai._users > 0
        assert (await asgi.request(app, "GET", f"{host.path}/v1/models")).status == 401
        headers = {"authorization": "Bearer tok"}
        answer = await asgi.request(app, "GET", f"{host.path}/v1/models", headers=headers)
        assert answer.status == 200
    assert ai._users == 0


@pytest.mark.parametrize("host", MOUNTING, ids=str)
async def test_a_router_as_an_app_works_in_every_host(host: Host) -> None:
    upstream = Upstream(answers())
    router = ProviderRouter({"m": OPENAI.using("sk-1")}, transport=upstream.transport)
    app = host.build({host.path: router})
    for root in ROOTS:
        if root == "kept" and not host.kept:
            continue  # as above
        client = Client(app, host, root)
        async with asgi.lifespan(app):  # three times in a row
            answer = await client.request("POST", "/openai/v1/chat/completions", CHAT)
            assert answer.status == 200, root
            assert (await client.request("GET", "/nobody/v1/models")).status == 404


async def test_litestar_mounts_by_prefix_and_the_dispatcher_by_segment() -> None:
    ai, _ = gateway()
    alone = litestar({"/ai": ai})
    answer = await asgi.request(alone, "GET", "/airports/lhr")
    assert (answer.status, answer.json["error"]["type"]) == (404, "invalid_request_error")
    behind = Dispatcher(litestar({}), {"/ai": ai})
    async with asgi.lifespan(behind):
        assert (await asgi.request(behind, "GET", "/airports/lhr")).body == b"hello"
        assert (await asgi.request(behind, "GET", "/ai/v1/models")).status == 200


# ── behind a host's own middleware ───────────────────────────────────────────


class Passing(BaseHTTPMiddleware):
    """A host's middleware, as it is commonly written."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-host"] = "seen"
        return response


def behind_base_http(ai: Any) -> Any:
    return Starlette(routes=[Mount("/ai", ai)], middleware=[Middleware(Passing)])


def behind_fastapi_function(ai: Any) -> Any:
    app = FastAPI()

    @app.middleware("http")
    async def passing(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-host"] = "seen"
        return response

    app.mount("/ai", ai)
    return app


BEHIND = [behind_base_http, behind_fastapi_function]
PATH = "/ai/v1/chat/completions"


@pytest.mark.parametrize("build", BEHIND)
async def test_behind_http_middleware_answers_arrive_whole_and_streamed(build: Any) -> None:
    ai, upstream = gateway()
    app = build(ai)
    answer = await asgi.chat(app, PATH)
    assert (answer.status, answer.header("x-host")) == (200, "seen")
    upstream.steps = [streams()]
    answer = await asgi.chat(app, PATH, stream=True)
    assert answer.events[-1] == "[DONE]"
    assert (await asgi.request(app, "GET", "/ai/v1/nothing")).json["error"]


@pytest.mark.parametrize("build", BEHIND)
async def test_behind_http_middleware_a_stream_arrives_piece_by_piece(build: Any) -> None:
    ai, upstream = gateway()
    first, second, *rest = chat_stream("Hel", "lo")
    upstream.steps = [streams(first, second, 0.2, *rest)]
    async with asgi.opened(build(ai), "POST", PATH) as exchange:
        exchange.send_body(b'{"model":"m","messages":[],"stream":true}')
        assert (await exchange.message())["type"] == "http.response.start"
        message = await exchange.message()
        assert b"Hel" in message["body"]
        assert upstream.open == 1  # while the rest is still to come
        while message.get("more_body"):
            message = await exchange.message()
        await exchange.ended()
    assert upstream.open == 0


@pytest.mark.parametrize("build", BEHIND)
@pytest.mark.parametrize("how", ["disconnect", "disconnect-and-send-fails"])
async def test_behind_http_middleware_a_disconnect_ends_the_request_to_the_provider(
    build: Any, how: str
) -> None:
    ai, upstream = gateway(streams(*chat_stream("Hel")[:2], 30.0))
    async with asgi.opened(build(ai), "POST", PATH) as exchange:
        exchange.send_body(b'{"model":"m","messages":[],"stream":true}')
        await exchange.message()
        await exchange.message()
        exchange.disconnect(send_fails=how.endswith("fails"))
        await asyncio.wait_for(upstream.closed.wait(), 5)
        with suppress(OSError):  # the host writes again
            await exchange.ended()
    assert upstream.open == 0


# ── lifespan(...) ────────────────────────────────────────────────────────────


class Part:
    """An async context manager that notes in a shared log what happens to it."""

    def __init__(self, name: str, log: list[str], *, fails: str = "") -> None:
        self.name, self.log, self.fails = name, log, fails

    async def __aenter__(self) -> Part:
        self.log.append(f"+{self.name}")
        if self.fails == "in":
            raise OSError("no entry")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.log.append(f"-{self.name}")
        if self.fails == "out":
            raise OSError("stuck")


async def state(request: Request) -> JSONResponse:
    found = {k: v for k, v in request.scope["state"].items() if isinstance(v, str)}
    return JSONResponse(found)


def of_starlette(function: Any) -> Any:
    return Starlette(routes=[Route("/state", state)], lifespan=function)


def of_fastapi(function: Any) -> Any:
    app = FastAPI(lifespan=function)
    app.add_route("/state", state)
    return app


def of_litestar(function: Any) -> Any:
    return Litestar([], lifespan=[function])


def of_quart(function: Any) -> Any:
    app = Quart(__name__)
    app.while_serving(function)
    return app


LIFESPANS = [of_starlette, of_fastapi, of_litestar, of_quart]


@pytest.mark.parametrize("build", LIFESPANS)
async def test_parts_open_in_order_and_close_the_other_way_round(build: Any) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[None]:
        log.append("+own")
        yield
        log.append("-own")

    app = build(lifespan(Part("a", log), own, Part("b", log)))
    async with asgi.lifespan(app):
        assert log == ["+a", "+own", "+b"]
    assert log == ["+a", "+own", "+b", "-b", "-own", "-a"]


@pytest.mark.parametrize("build", [of_starlette, of_fastapi])
async def test_what_the_hosts_own_lifespan_yields_is_passed_on(build: Any) -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, Any]]:
        seen.append(app)
        yield {"database": "open", "both": "first"}

    @asynccontextmanager
    async def other(app: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"both": "second"}

    app = build(lifespan(OpenAIShim(OPENAI), own, other))
    async with asgi.lifespan(app) as kept:
        assert seen == [app]
        assert kept == {"database": "open", "both": "second"}
        answer = await asgi.request(app, "GET", "/state", state=dict(kept))
        assert answer.json == kept


async def test_a_server_without_state_is_enough_if_there_is_none() -> None:
    shim = OpenAIShim(OPENAI)
    app = of_starlette(lifespan(shim))
    async with asgi.Exchange(app, {"type": "lifespan", "asgi": {}}) as exchange:
        exchange._in.put_nowait({"type": "lifespan.startup"})
        assert await exchange.message() == {"type": "lifespan.startup.complete"}
        assert shim._users == 1
        exchange._in.put_nowait({"type": "lifespan.shutdown"})
        await exchange.ended()
    assert shim._users == 0


@pytest.mark.parametrize("build", LIFESPANS)
async def test_when_one_part_fails_to_start_those_before_it_are_closed(build: Any) -> None:
    log: list[str] = []
    app = build(lifespan(Part("a", log), Part("b", log), Part("c", log, fails="in")))
    with pytest.raises(AssertionError, match=r"startup\.failed"):
        async with asgi.lifespan(app):
            pass
    assert log[:5] == ["+a", "+b", "+c", "-b", "-a"]


@pytest.mark.parametrize("build", [of_starlette, of_fastapi])
async def test_when_one_part_fails_to_close_the_others_are_closed(build: Any) -> None:
    log: list[str] = []
    app = build(lifespan(Part("a", log), Part("b", log, fails="out"), Part("c", log)))
    with pytest.raises(AssertionError, match=r"shutdown\.failed"):
        async with asgi.lifespan(app):
            pass
    assert log == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_a_lifespan_can_be_entered_without_a_host() -> None:
    log: list[str] = []
    async with lifespan(Part("a", log))() as nothing:
        assert (nothing, log) == (None, ["+a"])
    assert log == ["+a", "-a"]
    with pytest.raises(ValueError, match="mine"):
        async with lifespan(Part("b", log))():
            raise ValueError("mine")
    assert log[2:] == ["+b", "-b"]


async def test_one_app_opened_by_two_hosts_closes_with_the_last() -> None:
    ai, _ = gateway()
    async with asgi.lifespan(of_starlette(lifespan(ai))):
        async with asgi.lifespan(of_starlette(lifespan(ai))):
            assert ai._users == 2
        assert ai._users == 1
    assert ai._users == 0


@pytest.mark.parametrize("part", [None, 5, "app", OpenAIShim, {"a": 1}])
def test_a_part_that_is_not_a_context_manager_is_refused(part: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"lifespan\(\) takes apps"):
        lifespan(part)


async def test_a_function_that_is_not_a_lifespan_is_reported_at_startup() -> None:
    async def forgotten(app: Any) -> AsyncIterator[None]:
        yield

    def nothing(app: Any) -> None: ...

    for part in (forgotten, nothing):
        with pytest.raises(ConfigurationError, match="asynccontextmanager"):
            async with lifespan(part)():  # type: ignore[arg-type]
                pass


# ── mount(...) ───────────────────────────────────────────────────────────────


class EchoApp:
    """An app that answers with its name and its scope."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self.name.encode()})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "reason": self.name})


@pytest.mark.parametrize(
    ("path", "root", "name", "root_path"),
    [
        ("/ai", "", "ai", "/ai"),
        ("/ai/", "", "ai", "/ai"),
        ("/ai/v1", "", "ai", "/ai"),
        ("/ai/admin", "", "admin", "/ai/admin"),  # the longest prefix
        ("/ai/admin/x", "", "admin", "/ai/admin"),
        ("/ai/administrator", "", "ai", "/ai"),  # whole segments
        ("/aix", "", "host", ""),
        ("/ai-admin/x", "", "host", ""),
        ("/", "", "host", ""),
        ("", "", "host", ""),
        ("/x/ai", "", "host", ""),
        ("/api/ai/v1", "/api", "ai", "/api/ai"),
        ("/ai/v1", "/api", "ai", "/api/ai"),
        ("/api/v1", "/api", "host", "/api"),
        ("/api", "/api", "host", "/api"),
        ("/api/ai/v1", "/api/", "ai", "/api/ai"),
        ("/apix/ai", "/api", "host", "/api"),
    ],
)
async def test_paths_are_dispatched_to_their_mounts(
    path: str, root: str, name: str, root_path: str
) -> None:
    apps = {name: EchoApp(name) for name in ("host", "ai", "admin")}
    app = Dispatcher(apps["host"], {"/ai": apps["ai"], "/ai/admin": apps["admin"]})
    answer = await asgi.request(app, "GET", path, root_path=root)
    assert answer.body.decode() == name
    (scope,) = apps[name].scopes
    assert scope["path"] == path  # the whole path, as ASGI has it
    assert scope["root_path"].rstrip("/") == root_path
    if name == "host":
        assert scope["root_path"] == root


async def test_the_hosts_scope_is_not_changed_by_a_mount() -> None:
    app = Dispatcher(EchoApp("host"), {"/ai": EchoApp("ai")})
    scope = asgi.scope_of("GET", "/ai/v1")
    before = dict(scope)
    async with asgi.Exchange(app, scope) as exchange:
        await exchange.answer()
    assert scope == before


@pytest.mark.parametrize(("path", "name"), [("/ai/v1/realtime", "ai"), ("/chat", "host")])
async def test_websockets_are_dispatched_to_their_mounts(path: str, name: str) -> None:
    app = Dispatcher(EchoApp("host"), {"/ai": EchoApp("ai")})
    async with asgi.Exchange(app, {"type": "websocket", "path": path}) as exchange:
        exchange._in.put_nowait({"type": "websocket.connect"})
        assert (await exchange.message())["reason"] == name
        await exchange.ended()


async def test_a_websocket_to_a_gateway_in_a_real_host_is_refused() -> None:
    async def chat(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close()

    ai, _ = gateway()
    app = Dispatcher(Starlette(routes=[WebSocketRoute("/chat", chat)]), {"/ai": ai})
    for path, first in (("/ai/v1/realtime", "websocket.close"), ("/chat", "websocket.accept")):
        scope = {**asgi.scope_of("GET", path), "type": "websocket", "subprotocols": []}
        async with asgi.Exchange(app, scope) as exchange:
            exchange._in.put_nowait({"type": "websocket.connect"})
            assert (await exchange.message())["type"] == first


async def test_scopes_of_no_known_type_go_to_the_host() -> None:
    host = EchoApp("host")
    async with asgi.Exchange(
        Dispatcher(host, {"/ai": EchoApp("ai")}), {"type": "mystery"}
    ) as exchange:
        await exchange.ended()
    assert [scope["type"] for scope in host.scopes] == ["mystery"]


def living(name: str, log: list[str], **yielded: str) -> Starlette:
    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, str]]:
        log.append(f"+{name}")
        yield yielded
        log.append(f"-{name}")

    return Starlette(routes=[Route("/state", state), Mount("/x", EchoApp("x"))], lifespan=own)


async def test_lifespan_reaches_the_host_and_all_that_is_mounted() -> None:
    log: list[str] = []
    ai, _ = gateway()
    behind = Authenticate(living("behind", log), verify=static_tokens({"tok": "me"}))
    app = Dispatcher(
        living("host", log), {"/ai": ai, "/own": living("own", log), "/behind": behind}
    )
    for _ in range(2):  # also again
        log.clear()
        async with asgi.lifespan(app):
            assert ai._users == 1
            # Mounted apps start before the host, which may use them, and end after it.
            assert log == ["+behind", "+own", "+host"]
        assert log[3:] == ["-host", "-own", "-behind"]
        assert ai._users == 0


async def test_each_app_has_the_state_of_its_own_lifespan() -> None:
    log: list[str] = []
    host = living("host", log, database="the host's", host="h")
    own = living("own", log, database="its own", own="o")
    app = Dispatcher(host, {"/own": own, "/ai": gateway()[0]})
    async with asgi.lifespan(app) as kept:
        assert kept == {"database": "the host's", "host": "h"}
        answer = await asgi.request(app, "GET", "/state", state=dict(kept))
        assert answer.json == kept
        answer = await asgi.request(app, "GET", "/own/state", state=dict(kept))
        assert answer.json == {"database": "its own", "own": "o", "host": "h"}


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("I know no lifespan")  # as Django does


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


async def returns_after_startup(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def breaks_later(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise RuntimeError("broke while serving")


@pytest.mark.parametrize("host", [raises, returns, returns_after_startup, breaks_later])
async def test_a_host_without_lifespan_works(host: Any) -> None:
    ai, _ = gateway()
    async with asgi.lifespan(Dispatcher(host, {"/ai": ai})):
        assert ai._users == 1
    assert ai._users == 0


@pytest.mark.parametrize("where", ["host", "mounted"])
async def test_a_failed_startup_is_reported_to_the_server_and_leaves_nothing_open(
    where: str,
) -> None:
    log: list[str] = []
    ai, _ = gateway()

    @asynccontextmanager
    async def broken(app: Any) -> AsyncIterator[None]:
        raise OSError("the database is away")
        yield

    bad = Starlette(lifespan=broken)
    host, extra = (bad, EchoApp("x")) if where == "host" else (living("host", log), bad)
    app = Dispatcher(host, {"/ai": ai, "/zz/extra": extra})
    before = asyncio.all_tasks()
    async with asgi.Exchange(app, {"type": "lifespan", "asgi": {}}) as exchange:
        exchange._in.put_nowait({"type": "lifespan.startup"})
        message = await exchange.message()
        assert message["type"] == "lifespan.startup.failed"
        assert "the database is away" in message["message"]
        with pytest.raises(RuntimeError):
            await exchange.ended()
    assert ai._users == 0
    assert log == []
    assert {task for task in asyncio.all_tasks() if not task.done()} <= before


async def test_a_shutdown_that_fails_still_closes_the_rest() -> None:
    ai, _ = gateway()

    @asynccontextmanager
    async def stuck(app: Any) -> AsyncIterator[None]:
        yield
        raise OSError("cannot close")

    app = Dispatcher(Starlette(lifespan=stuck), {"/ai": ai})
    with pytest.raises(AssertionError, match="cannot close"):
        async with asgi.lifespan(app):
            assert ai._users == 1
    assert ai._users == 0


async def test_a_server_that_stops_without_shutdown_closes_everything() -> None:
    log: list[str] = []
    ai, _ = gateway()
    app = Dispatcher(living("host", log), {"/ai": ai})
    async with asgi.Exchange(app, {"type": "lifespan", "asgi": {}, "state": {}}) as exchange:
        exchange._in.put_nowait({"type": "lifespan.startup"})
        assert (await exchange.message())["type"] == "lifespan.startup.complete"
    assert ai._users == 0
    assert log == ["+host", "-host"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dispatcher(returns, {"ai": returns}), "must begin with '/'"),
        (lambda: Dispatcher(returns, {"/ai/": returns}), "not end with it"),
        (lambda: Dispatcher(returns, {"": returns}), "must begin with '/'"),
        (lambda: Dispatcher(returns, {"/": returns}), "not end with it"),
        (lambda: Dispatcher(returns, {"/ai": None}), "not an ASGI app"),  # type: ignore[dict-item]
        (lambda: Dispatcher(None, {"/ai": returns}), "the host None is not an ASGI app"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_mount_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_the_repr_of_a_mount_shows_its_apps() -> None:
    app = Dispatcher(returns, {"/ai": EchoApp("ai"), "/ai/admin": EchoApp("admin")})
    assert repr(app).endswith("/ai/admin, /ai)")
