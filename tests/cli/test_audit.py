"""The command `audit`."""

from __future__ import annotations

import socket

from tests.cli.conftest import Run


def test_changes_by_commands_are_listed_with_their_caller(run: Run) -> None:
    run("groups", "create", "gold", "--ratio", "2")
    run("keys", "add", "openai", "--id", "b", stdin="sk-a-secret-of-openai\n")
    run("groups", "edit", "gold", "--ratio", "3")
    found = run("audit", "--json").json["data"]
    assert [entry["action"] for entry in found] == ["group.edit", "key.add", "group.create"]
    assert {entry["source"] for entry in found} == {"cli"}
    assert found[0]["address"].endswith(f"@{socket.gethostname()}")
    table = run("audit", "--action", "group", "--since", "1h").out
    assert "ratio: 2.0 -> 3.0" in table
    assert "key.add" not in table
    assert "sk-a-secret-of-openai" not in run("audit", "--json").out
    assert run("audit", "--actor", "ann").out == "No changes.\n"
