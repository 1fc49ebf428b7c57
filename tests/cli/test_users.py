"""The command `users`."""

from __future__ import annotations

from tests.cli.conftest import Run


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
    assert run("users", "remove", "ben").out == "The user ben was removed.\n"
    missing = run("users", "disable", "ben")
    assert (missing.status, missing.err) == (1, "asgi_aiproxy: There is no user 'ben'.\n")
    assert "already exists" in (run("users", "create", "eve"), run("users", "create", "EVE"))[1].err
