"""The command line: changes persist, output is readable, and errors are never a traceback."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_aiproxy.config.settings import load
from asgi_aiproxy.stores import MemoryStore
from asgi_aiproxy.testing import Answer, MockProvider, serve_in_thread
from tests.cli.conftest import Run

# ── tokens ───────────────────────────────────────────────────────────────────


def test_a_token_is_issued_listed_edited_rotated_and_revoked(run: Run) -> None:
    issued = run(
        *("tokens", "issue", "--name", "team-1", "--budget", "25", "--budget", "5/day"),
        *("--rpm", "60", "--models", "gpt-*", "claude-*", "--expires", "30d"),
    )
    assert issued.status == 0, issued.err
    secret = issued.out.splitlines()[2].strip()
    assert secret.startswith("sk-")
    listed = run("tokens", "list")
    lines = listed.out.splitlines()
    assert [word in lines[0] for word in ("ID", "NAME", "STATUS", "LEFT", "RPM")] == [True] * 5
    assert "team-1" in lines[1]
    assert "$25.00 of $25.00, $5.00 of $5.00/day" in lines[1]
    assert "gpt-*, claude-*" in lines[1]
    (token,) = run("tokens", "list", "--json").json["data"]
    assert 29 * 86400 < token["expires"] - time.time() <= 30 * 86400
    assert secret not in listed.out + str(token)
    id = token["id"]
    edited = run("tokens", "edit", id, "--rpm", "none", "--budget", "7", "--disable", "--json").json
    assert (edited["status"], "rpm" in edited["limits"]) == ("disabled", False)
    assert [(one["limit"], one["per"]) for one in edited["limits"]["budgets"]] == [(7.0, "total")]
    assert edited["models"] == ["gpt-*", "claude-*"]  # options not given stay unchanged
    rotated = run("tokens", "rotate", "team-1", "--grace", "1h", "--json").json
    assert (rotated["secret"] != secret, rotated["token"]["id"]) == (True, id)
    assert run("tokens", "revoke", "team-1").out == f"The token {id} is revoked.\n"
    assert run("tokens", "list").out == "No tokens.\n"
    assert run("tokens", "show", id).status == 1


def test_a_token_can_have_every_option_of_the_api(run: Run) -> None:
    run("groups", "create", "gold", "--ratio", "0.5")
    run("accounts", "create", "acme", "--budget", "100/month")
    token = run(
        *("tokens", "issue", "--name", "t", "--tpm", "1000", "--concurrency", "2"),
        *("--units", "500/month", "--networks", "10.0.0.0/8", "--group", "gold"),
        *(
            "--account",
            "acme",
            "--may-choose-key",
            "--scope",
            "read",
            "--expires",
            "never",
            "--json",
        ),
    ).json["token"]
    assert (token["group"], token["account"], token["scopes"]) == ("gold", "acme", ["read"])
    assert (token["may_choose_key"], token["networks"]) == (True, ["10.0.0.0/8"])
    assert token["limits"]["budgets"][0]["unit"] == "units"
    assert "gold" in run("groups", "list").out
    assert "$100.00 of $100.00/month" in run("accounts", "list").out
    group = run("groups", "edit", "gold", "--keys", "a", "b", "--json").json
    assert (group["ratio"], group["keys"]) == (0.5, ["a", "b"])
    account = run("accounts", "edit", "acme", "--no-enabled", "--budget", "7", "--json").json
    assert (account["enabled"], account["limits"]["budgets"][0]["limit"]) == (False, 7.0)
    assert run("accounts", "edit", "acme", "--enabled").out == "The account acme was changed.\n"
    assert run("groups", "remove", "gold").status == 0
    assert run("accounts", "remove", "acme", "--json").json == {"ok": True}


def test_a_name_that_two_tokens_have_is_refused(run: Run) -> None:
    ids = [run("tokens", "issue", "--name", "twin", "--json").json["token"]["id"] for _ in "ab"]
    done = run("tokens", "revoke", "twin")
    assert (done.status, all(id in done.err for id in ids)) == (1, True)
    assert len(run("tokens", "list", "--json").json["data"]) == 2


def test_a_long_list_shows_how_to_continue(run: Run) -> None:
    for _ in range(3):
        run("tokens", "issue", "--name", "t")
    first = run("tokens", "list", "--limit", "2")
    assert len(first.out.splitlines()) == 3
    after = first.err.split()[-1]
    rest = run("tokens", "list", "--limit", "2", "--after", after)
    assert (len(rest.out.splitlines()), rest.err) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["tokens", "issue"], 2, "--name"),
        (["tokens", "issue", "--name", "x", "--budget", "-5"], 2, "is not a budget"),
        (["tokens", "issue", "--name", "x", "--budget", "5/year"], 2, "is not a budget"),
        (["tokens", "issue", "--name", "x", "--budget", "nan"], 2, "is not a budget"),
        (["tokens", "issue", "--name", "x", "--units", "1.5"], 2, "is not a budget"),
        (["tokens", "issue", "--name", "x", "--rpm", "0"], 2, "--rpm"),
        (["tokens", "issue", "--name", "x", "--expires", "soon"], 2, "invalid time"),
        (["tokens", "issue", "--name", "x", "--expires", "2020-01-01"], 1, "expires: "),
        (["tokens", "issue", "--name", ""], 1, "name: "),
        (
            ["tokens", "issue", "--name", "x", "--group", "none"],
            1,
            "group: the group 'none' does not exist",
        ),
        (["tokens", "issue", "--name", "x", "--networks", "here"], 1, "networks: "),
        (["tokens", "issue", "--name", "x", "--budget", "1", "--budget", "2"], 1, "budgets: "),
        (["tokens", "issue", "--name", "x", "--secret", "a-secret-in-the-open"], 2, "unrecognized"),
        (["tokens", "issue", "--name", "x", "--colour", "red"], 2, "unrecognized"),
        (["tokens", "rotate", "x", "--grace", "a while"], 2, "invalid duration"),
        (["tokens", "revoke", "unknown"], 1, "unknown"),
        (["tokens", "list", "--limit", "0"], 2, "1 to 1000"),
        (["groups", "create", "g", "--ratio", "-1"], 1, "ratio: "),
        (["keys", "list", "unknown"], 1, "provider 'unknown' does not exist"),
        (["keys", "disable", "openai", "unknown"], 1, "key 'unknown' does not exist"),
        (["keys", "remove", "openai", "file"], 1, "defined in the configuration"),
        (["keys", "import", "openai", "/no/such/file"], 2, "/no/such/file"),
        (["vouchers", "create"], 2, "--usd"),
        (["vouchers", "create", "--usd", "-1"], 1, "usd: "),
        (["vouchers", "create", "--usd", "1", "--count", "0"], 1, "count: "),
        (["vouchers", "redeem", "unknown"], 1, "code: "),
        (["vouchers", "redeem", "A-CODE", "token/a"], 2, "unrecognized"),
        (["usage", "--by", "colour"], 2, "--by"),
        (["usage", "--since", "2026-99-01"], 2, "invalid time"),
        (["usage", "--model", "m", "--group", "g"], 2, "requires --last"),
        (["usage", "--last", "1", "--state", "odd"], 1, "state: "),
    ],
)
def test_an_error_is_one_readable_message(
    run: Run, arguments: list[str], status: int, words: str
) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (status, "")
    assert words in done.err
    assert run("tokens", "list", "--json").json["data"] == []


# ── keys ─────────────────────────────────────────────────────────────────────


def test_keys_are_added_listed_disabled_edited_and_removed(run: Run) -> None:
    added = run("keys", "add", "openai", "--id", "main", "--rpm", "5", stdin="sk-secret-1\n")
    assert (added.status, added.out) == (0, "The key main was added.\n"), added.err
    keys = run("keys", "list", "openai", "--json").json["data"]
    assert [(key["id"], key["source"], key["rpm"]) for key in keys] == [
        ("file", "code", None), ("main", "store", 5),
    ]  # fmt: skip
    listed = run("keys", "list")
    assert "main" in listed.out
    assert "sk-" not in listed.out + str(keys)
    assert run("keys", "disable", "openai", "main", "--json").json["health"] == "dead"
    assert run("keys", "enable", "openai", "main", "--json").json["health"] == "ok"
    before = keys[1]["fingerprint"]
    edited = run("keys", "edit", "openai", "main", "--rpm", "none", "--secret", "--json",
                 stdin="sk-secret-2\n").json  # fmt: skip
    assert (edited["rpm"], edited["fingerprint"] != before) == (None, True)
    assert run("keys", "remove", "openai", "main").status == 0
    assert [key["id"] for key in run("keys", "list", "--json").json] == ["file"]


def test_a_list_of_keys_is_imported_or_its_invalid_lines_are_named(
    run: Run, tmp_path: Path
) -> None:
    lines = [f"k{n} sk-{n}" for n in range(10_000)]
    good = tmp_path / "good"
    good.write_text("\n".join(lines))
    for at in (10, 500, 9_999):
        lines[at] = "what is this"
    bad = tmp_path / "bad"
    bad.write_text("\n".join(lines))
    done = run("keys", "import", "openai", str(bad))
    assert (done.status, done.out) == (1, "")
    reported = [line.split(":")[0].strip() for line in done.err.splitlines()[1:]]
    assert reported == ["line 11", "line 501", "line 10000"]
    assert len(run("keys", "list", "openai", "--json").json["data"]) == 1
    assert run("keys", "import", "openai", str(good)).out == "10000 keys were imported.\n"
    done = run("keys", "import", "openai", "-", "--replace", "--json", stdin="only sk-only\n")
    assert done.json == {"ids": ["only"]}
    assert len(run("keys", "list", "openai", "--json").json["data"]) == 2


def test_keys_are_tested(run: Run, configured: Callable[[str], Path]) -> None:
    mock = MockProvider(Answer(text="Hi"))
    with serve_in_thread(mock) as url:
        configured(url)
        done = run("keys", "test", "openai")
        assert (done.status, done.err) == (0, "")
        assert "200" in done.out
        (found,) = run("keys", "test", "openai", "file", "--model", "gpt-4o", "--json").json
        assert (found["ok"], found["id"]) == (True, "file")
    gone = run("keys", "test", "openai", "file", "--json")
    assert gone.status == 1  # so that scripts notice it


def test_secrets_are_encrypted_again_with_a_new_key(
    run: Run, configured: Callable[[], Path]
) -> None:
    run("keys", "add", "openai", "--id", "main", stdin="sk-secret-1\n")
    path = configured()
    old = '["a passphrase that is long enough"]'
    new = '["another passphrase, long enough"'
    text = path.read_text()
    path.write_text(text.replace(old, f"{new}, {old[1:]}"))
    assert run("keys", "reseal").out == "1 secrets were encrypted with the first of sealing_keys.\n"
    path.write_text(text.replace(old, f"{new}]"))
    assert run("keys", "list", "openai", "--json").json["data"][1]["health"] == "ok"
    path.write_text(text)
    wrong = run("keys", "list", "openai")
    assert "sk-secret" not in wrong.out + wrong.err
    path.write_text(text.replace(f"sealing_keys = {old}", ""))
    assert run("keys", "reseal").status == 1
    assert run("keys", "add", "openai", stdin="sk-2\n").status == 2


# ── vouchers ─────────────────────────────────────────────────────────────────


def test_vouchers_are_created_exported_and_redeemed(run: Run) -> None:
    made = run("vouchers", "create", "--count", "3", "--usd", "5", "--name", "spring")
    codes = made.out.split()
    assert (len(codes), "3 vouchers created" in made.err) == (3, True)
    rows = list(csv.DictReader(io.StringIO(run("vouchers", "export", "--name", "spring").out)))
    assert [(row["status"], row["amount"]) for row in rows] == [("open", "5.0")] * 3
    assert run("vouchers", "export", "--name", "none", "--json").json == []
    id = run("tokens", "issue", "--name", "t", "--budget", "1", "--json").json["token"]["id"]
    done = run("vouchers", "redeem", f"token/{id}", stdin=codes[0])
    assert done.out == f"$5.00 added to token/{id}.\n"
    again = run("vouchers", "redeem", f"token/{id}", stdin=codes[0])
    assert (again.status, "already been redeemed" in again.err) == (1, True)
    assert "$6.00 of $6.00" in run("tokens", "show", id).out
    other = next(row["id"] for row in rows if row["id"] != codes[0].replace("-", "")[:8])
    assert run("vouchers", "disable", other).out == f"The voucher {other} is disabled.\n"
    assert run("vouchers", "enable", other, "--json").json["status"] == "open"
    assert "spring" in run("vouchers", "list").out


# ── usage ────────────────────────────────────────────────────────────────────


def test_usage_is_reported_by_the_requested_grouping(run: Run) -> None:
    import asyncio

    from asgi_aiproxy.config.factory import make_store
    from asgi_aiproxy.messages import Usage
    from asgi_aiproxy.usage.ledger import Ledger
    from asgi_aiproxy.usage.record import UsageRecord

    async def use() -> None:
        store = make_store(load())
        assert store is not None
        async with store, Ledger(store) as ledger:
            for number, model in enumerate(("big", "big", "small")):
                await ledger(
                    UsageRecord(
                        id=f"r{number}",
                        principal="ann",
                        requested_model=model,
                        provider="openai",
                        usage=Usage(input=100, output=10),
                        cost=1_250_000,
                        started=time.time(),
                    )
                )

    assert run("usage").out == "No usage.\n"
    asyncio.run(use())
    table = run("usage", "--by", "model", "--since", "7d").out.splitlines()
    assert table[0].split() == ["MODEL", "REQUESTS", "FAILED", "INPUT", "OUTPUT", "COST", "UNITS"]
    assert table[1].split() == ["big", "2", "0", "200", "20", "$2.50", "0"]
    rows = run("usage", "--by", "principal", "--json").json["data"]
    assert [(row["name"], row["requests"], row["usd"]) for row in rows] == [("ann", 3, 3.75)]
    last = run("usage", "--last", "5", "--model", "small")
    assert (len(last.out.splitlines()), "$1.25" in last.out) == (2, True)
    assert len(run("usage", "--last", "2", "--json").json["data"]) == 2
    assert run("usage", "--until", "2020-01-01", "--since", "2019-12-01").out == "No usage.\n"


# ── the store ────────────────────────────────────────────────────────────────


def test_without_a_persistent_store_a_command_is_refused(
    run: Run, configured: Callable[[], Path]
) -> None:
    path = configured()
    path.write_text('[providers.openai]\nkeys = ["sk-1"]\n')
    for arguments in (["tokens", "issue", "--name", "x"], ["usage"], ["keys", "list"]):
        done = run(*arguments)
        assert (done.status, done.out) == (2, "")
        assert "would end with this command" in done.err


def test_an_unreachable_store_is_reported(run: Run, configured: Callable[[], Path]) -> None:
    configured().write_text('redis_url = "redis://:password@127.0.0.1:9/0"\n')
    done = run("tokens", "list")
    assert (done.status, done.out, "password" in done.err) == (1, "", False)
    assert "asgi_aiproxy: " in done.err


def test_a_store_file_in_use_by_a_gateway_is_not_opened(
    run: Run, configured: Callable[[], Path], tmp_path: Path
) -> None:
    file = tmp_path / "in-use"
    configured().write_text(f'store_file = "{file}"\n[providers.openai]\nkeys = ["sk-1"]\n')
    store = MemoryStore(file=file)
    done = run("tokens", "list")
    assert (done.status, done.out) == (2, "")
    assert str(file) in done.err
    assert run("check").status == 0
    del store


def test_a_redis_url_alone_is_enough(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.delenv("AIPROXY_CONFIG")
    monkeypatch.setenv("AIPROXY_REDIS_URL", redis_url)
    monkeypatch.setenv("AIPROXY_REDIS_PREFIX", f"test-alone-{time.time_ns()}")
    monkeypatch.setenv("AIPROXY_SEALING_KEYS", "a passphrase that is long enough")
    assert run("tokens", "issue", "--name", "x").status == 0
    assert run("keys", "add", "anthropic", stdin="sk-ant-1\n").status == 0
    assert len(run("keys", "list", "anthropic", "--json").json["data"]) == 1


def test_a_reader_that_stops_early_sees_no_error(run: Run, configured: Callable[[], Path]) -> None:
    run("vouchers", "create", "--count", "5000", "--usd", "1")
    command = [sys.executable, "-m", "asgi_aiproxy", "vouchers", "export"]
    command += ["--config", str(configured())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_a_name_cannot_control_a_terminal(run: Run) -> None:
    run("tokens", "issue", "--name", "evil\x1b[2J")
    assert "\x1b" not in run("tokens", "list").out


@pytest.mark.parametrize(
    "words",
    [("tokens", "issue", "--name", "x"), ("accounts", "create", "acme")],
    ids=["tokens", "accounts"],
)
def test_a_budget_that_no_call_could_use_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    ran = run(*words, "--budget", "5")
    assert ran.status == 2
    assert "asgi-aiproxy[prices]" in ran.err
    assert run(*words, "--rpm" if words[0] == "tokens" else "--name", "7").status == 0


def test_usage_is_summed_up_for_a_token_by_its_name(run: Run) -> None:
    import asyncio

    from asgi_aiproxy.config.factory import make_store
    from asgi_aiproxy.usage.ledger import Ledger
    from asgi_aiproxy.usage.record import UsageRecord

    issued = run("tokens", "issue", "--name", "team-1", "--json").json["token"]["id"]

    async def use() -> None:
        store = make_store(load())
        assert store is not None
        async with store, Ledger(store) as ledger:
            await ledger(UsageRecord(id="r", principal=issued, started=time.time()))

    asyncio.run(use())
    for words in (["--principal", "team-1"], ["--principal", issued]):
        (row,) = run("usage", *words, "--json").json["data"]
        assert (row["name"], row["requests"]) == (issued, 1)
        (record,) = run("usage", "--last", "5", *words, "--json").json["data"]
        assert record["principal"] == issued
    assert run("usage", "--principal", "unknown").out == "No usage.\n"


def test_the_account_of_a_token_can_be_changed(run: Run) -> None:
    run("accounts", "create", "acme")
    run("tokens", "issue", "--name", "t")
    for account in ("acme", ""):
        edited = run("tokens", "edit", "t", "--account", account, "--json")
        assert edited.json["account"] == account


def test_a_token_of_another_gateway_is_read_from_standard_input(run: Run) -> None:
    secret = "sk-of-another-gateway-0123"
    issued = run("tokens", "issue", "--name", "x", "--secret", "--json", stdin=secret + "\n")
    assert issued.json["secret"] == secret
    short = run("tokens", "issue", "--name", "y", "--secret", stdin="short")
    assert (short.status, "20 characters" in short.err) == (1, True)
