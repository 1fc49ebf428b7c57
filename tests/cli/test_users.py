"""The command `users`."""

from __future__ import annotations

import asyncio

import pytest

from asgi_aiproxy.config.settings import build, load
from tests.cli.conftest import Run
from tests.console.support import Browser
from tests.support import asgi_client as asgi


def test_the_first_root_is_made_by_a_command_that_prints_a_link(run: Run) -> None:
    made = run("users", "create", "--role", "root", "ann")
    assert made.status == 0
    assert "/console/password?link=" in made.out
    assert "Set its password" in made.out
    assert run("users", "list", "--json").json["data"][0]["role"] == "root"


def test_users_are_disabled_enabled_promoted_reset_and_removed(run: Run) -> None:
    run("users", "create", "ben")
    assert run("users", "disable", "ben").out == "The user ben was disabled.\n"
    assert not run("users", "list", "--json").json["data"][0]["enabled"]
    assert run("users", "enable", "ben", "--json").json["enabled"]
    assert run("users", "role", "ben", "operator", "--json").json["role"] == "operator"
    first, second = (run("users", "reset", "ben", "--json").json["link"] for _ in range(2))
    assert first != second
    removed = run("users", "remove-second-factor", "ben", "--json").json
    assert not removed["second_factor"]
    assert run("users", "remove-passkeys", "ben", "--json").json["passkeys"] == 0
    assert run("users", "remove", "ben").out == "The user ben was removed.\n"
    missing = run("users", "disable", "ben")
    assert (missing.status, missing.err) == (1, "asgi_aiproxy: There is no user 'ben'.\n")
    assert "already exists" in (run("users", "create", "eve"), run("users", "create", "EVE"))[1].err


def test_the_link_of_the_first_root_opens_the_console(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIPROXY_ADMIN_TOKEN", "the-token-of-the-root-of-all")
    monkeypatch.setenv("AIPROXY_CONSOLE", "true")
    monkeypatch.setenv("AIPROXY_ACCOUNTS__ENABLED", "true")
    link = run("users", "create", "--role", "root", "ann").out.splitlines()[-1]

    async def walk() -> None:
        app = build(load())
        async with asgi.lifespan(app):
            browser = Browser(app, "/console", root_path="")
            form = (await browser.get(link)).page.form("/password")
            await browser.submit(form, password="a long enough password")
            page = (await browser.open("/sign-in")).page
            form = page.form("/sign-in")
            form.fields = [pair for pair in form.fields if pair[0] != "token"]
            await browser.submit(form, username="ann", password="a long enough password")
            assert "ann" in (await browser.open("/users")).text
            again = (await browser.get(link)).page.form("/password")
            assert (await browser.submit(again, password="another password")).status == 400

    asyncio.run(walk())
