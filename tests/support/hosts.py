"""The hosts in which apps are mounted, each in its own way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import blacksheep
import django.conf
import django.core.asgi
import django.http
import django.urls
from blacksheep.server.routing import Router
from fastapi import FastAPI
from hypercorn.middleware import DispatcherMiddleware
from litestar import Litestar, get
from litestar.handlers import asgi
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_aiproxy import Dispatcher, lifespan

Apps = Mapping[str, Any]  # by the path they are mounted at


def bare(apps: Apps) -> Any:
    (app,) = apps.values()
    return app


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def starlette(apps: Apps) -> Any:
    routes = [Route("/hello", hello), Route("/airports/{code}", hello)]
    mounts = [Mount(path, app) for path, app in apps.items()]
    return Starlette(routes=[*routes, *mounts], lifespan=lifespan(*apps.values()))


def fastapi(apps: Apps, **options: Any) -> Any:
    app = FastAPI(lifespan=lifespan(*apps.values()), **options)
    app.add_route("/hello", hello)
    app.add_route("/airports/{code}", hello)
    for path, mounted in apps.items():
        app.mount(path, mounted)
    return app


def fastapi_rooted(apps: Apps) -> Any:
    with warnings.catch_warnings():  # deprecated, and still what many have
        warnings.simplefilter("ignore")
        return fastapi(apps, root_path="/api")


def litestar(apps: Apps) -> Any:
    @get("/hello", media_type="text/plain")
    async def greeting() -> str:
        return "hello"

    @get("/airports/{code:str}", media_type="text/plain")
    async def airports() -> str:
        return "hello"

    mounts = [asgi(path, is_mount=True, copy_scope=True)(app) for path, app in apps.items()]
    return Litestar([greeting, airports, *mounts], lifespan=[lifespan(*apps.values())])


def _quart(apps: Apps) -> Quart:
    app = Quart(__name__)
    app.while_serving(lifespan(*apps.values()))

    @app.get("/hello")
    @app.get("/airports/<code>")
    async def greeting(code: str = "") -> str:
        return "hello"

    return app


def quart_dispatched(apps: Apps) -> Any:
    return DispatcherMiddleware({**apps, "": _quart(apps)})


def quart_wrapped(apps: Apps) -> Any:
    app = _quart(apps)
    inner = app.asgi_app

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            for path, mounted in apps.items():
                if scope["path"] == path or scope["path"].startswith(path + "/"):
                    root = scope["root_path"] + path
                    return await mounted({**scope, "root_path": root}, receive, send)
        return await inner(scope, receive, send)

    app.asgi_app = asgi_app  # type: ignore[method-assign]
    return app


def blacksheep_mounted(apps: Apps) -> Any:
    app = blacksheep.Application(router=Router())
    app.lifespan(lifespan(*apps.values()))
    app.router.add_get("/hello", lambda: blacksheep.text("hello"))
    app.router.add_get("/airports/{code}", lambda code: blacksheep.text("hello"))
    for path, mounted in apps.items():
        app.mount(path, mounted)
    return app


class Urls:
    """Django's routes."""

    urlpatterns: ClassVar = [
        django.urls.path(path, lambda request, code="": django.http.HttpResponse("hello"))
        for path in ("hello", "airports/<str:code>")
    ]


def django_behind(apps: Apps) -> Any:
    if not django.conf.settings.configured:
        django.conf.settings.configure(
            ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="test", MIDDLEWARE=[]
        )
    return Dispatcher(django.core.asgi.get_asgi_application(), apps)


def starlette_behind(apps: Apps) -> Any:
    routes = [Route("/hello", hello), Route("/airports/{code}", hello)]
    return Dispatcher(Starlette(routes=routes), apps)


def litestar_behind(apps: Apps) -> Any:
    return Dispatcher(litestar({}), apps)


@dataclass(frozen=True)
class Host:
    """A host, and its restrictions.

    `kept`, `stripped`: finds its mounts when the server has a root path that is still in the path
    (uvicorn) or no longer (hypercorn, granian, FastAPI behind a proxy). `bounded`: takes whole
    segments only, so that routes that begin with the same letters are its own.
    """

    name: str
    build: Callable[[Apps], Any]
    path: str = "/ai"
    kept: bool = True
    stripped: bool = True
    bounded: bool = True

    def __str__(self) -> str:
        return self.name


HOSTS = [
    Host("bare", bare, path=""),
    Host("starlette", starlette),
    Host("fastapi", fastapi),
    Host("fastapi-root_path", fastapi_rooted),
    Host("litestar", litestar, bounded=False),
    # These compare the whole path with their mounts, also when it begins with the server's root.
    Host("quart-dispatcher", quart_dispatched, kept=False, bounded=False),
    Host("quart-wrapped", quart_wrapped, kept=False),
    Host("blacksheep", blacksheep_mounted, kept=False, bounded=False),
    Host("mount-django", django_behind),
    Host("mount-starlette", starlette_behind),
    Host("mount-litestar", litestar_behind),
]
