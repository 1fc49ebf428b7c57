"""The examples of docs/callers.md run unchanged: what protects a mount in each host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler, asgi as litestar_asgi

from asgi_aiproxy import OpenAIShim, ProviderRouter
from asgi_aiproxy.providers import OPENAI
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "callers.md").read_text("utf-8")


def box(heading: str) -> str:
    """The code below a heading."""
    found = re.search(rf"^##+ {heading}\n.*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def run(code: str) -> dict[str, Any]:
    module = sys.modules["docs"] = ModuleType("docs")  # where Litestar looks for annotations
    try:
        exec(compile(code, "docs/callers.md", "exec"), vars(module))
    finally:
        del sys.modules["docs"]
    return vars(module)


async def status(app: Any, path: str, **headers: str) -> int:
    return (await asgi.request(app, "GET", path, headers=headers)).status


async def login(app: Any) -> str:
    """Sign in; returns the cookie."""
    answer = await asgi.request(app, "GET", "/login")
    assert answer.status == 200
    cookie = answer.header("set-cookie")
    assert cookie is not None
    return str(cookie.partition(";")[0])


@pytest.mark.parametrize("host", ["Starlette", "Litestar", "Quart"])
async def test_only_users_with_a_session_may_call(host: str) -> None:
    app = run(box(host))["app"]
    assert await status(app, "/ai/v1/models") == 401
    cookie = await login(app)
    assert await status(app, "/ai/v1/models", cookie=cookie) == 200
    forged = cookie[:-3] + ("aaa" if not cookie.endswith("aaa") else "bbb")
    assert await status(app, "/ai/v1/models", cookie=forged) == 401


async def test_one_check_protects_fastapi_routes_and_the_mount() -> None:
    app = run(box("FastAPI"))["app"]
    for path in ("/hello", "/ai/v1/models"):
        assert await status(app, path) == 401
        assert await status(app, path, cookie="session=session-of-ada") == 200
        assert await status(app, path, cookie="session=other") == 401


def bare() -> OpenAIShim:
    return OpenAIShim(ProviderRouter({"gpt-4o": OPENAI.using("sk-1")}))


async def test_dependencies_of_fastapi_do_not_protect_a_mount_as_the_page_warns() -> None:
    def unknown() -> None:
        raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(unknown)])
    app.mount("/ai", bare())
    assert await status(app, "/ai/v1/models") == 200


async def test_guards_of_litestar_do_protect_a_mount_as_the_page_says() -> None:
    def unknown(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        raise NotAuthorizedException

    mounted = litestar_asgi("/ai", is_mount=True, copy_scope=True)(bare())
    assert await status(Litestar([mounted], guards=[unknown]), "/ai/v1/models") == 401
    mounted = litestar_asgi("/ai", is_mount=True, copy_scope=True, guards=[unknown])(bare())
    assert await status(Litestar([mounted]), "/ai/v1/models") == 401


# Settings are Django's own global, which other tests have set: so it has a process of its own.
DJANGO = """
import asyncio, sys
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="a long secret", ALLOWED_HOSTS=["*"], ROOT_URLCONF="", MIDDLEWARE=[],
    INSTALLED_APPS=["django.contrib." + name for name in ("auth", "contenttypes", "sessions")],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
)
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.asgi import get_asgi_application
from django.core.management import call_command
call_command("migrate", verbosity=0)
user = User.objects.create_user("ada", password="secret")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
from tests.hosts.test_callers import box, run, status
app = run(box("Django"))["create_app"](get_asgi_application())

async def show():
    cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    print(await status(app, "/ai/v1/models"))
    print(await status(app, "/ai/v1/models", cookie=cookie))
    print(await status(app, "/ai/v1/models", cookie=cookie + "x"))
    await User.objects.filter(pk=user.pk).aupdate(is_active=False)
    print(await status(app, "/ai/v1/models", cookie=cookie))

asyncio.run(show())
"""


def test_users_of_django_may_call_while_their_account_is_active(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", DJANGO, str(tmp_path / "db.sqlite3")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert shown.stdout.split() == ["401", "200", "401", "401"], shown.stderr
