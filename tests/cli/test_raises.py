"""Raises of budgets from a shell."""

from __future__ import annotations

from tests.cli.conftest import Run


def test_a_budget_is_raised_for_some_time(run: Run) -> None:
    run("accounts", "create", "acme", "--units", "100/week")
    raised = run("accounts", "raise", "acme", "--units", "50", "--per", "week", "--for", "24h")
    assert raised.out == "The budget of acme was raised.\n", raised.err
    assert "150 of 150 units/week" in run("accounts", "list").out
    assert run("accounts", "raise", "acme", "--units", "5", "--for", "1h").status == 1
