"""`python -m asgi_aiproxy connect`: the configuration of a client, and what its gateway lacks."""

from __future__ import annotations

import io
import json
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import (
    AIShim,
    AnthropicShim,
    Authenticate,
    OpenAIShim,
    PassthroughProxy,
    ProviderRouter,
    Shim,
)
from asgi_aiproxy.__main__ import main
from asgi_aiproxy.cli.connect import environment_lines, file_text
from asgi_aiproxy.connect import CLIENTS, GatewayAccess
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC
from asgi_aiproxy.testing import Fault, MockProvider, serve_in_thread

TOKEN = "team-token-of-the-test"
MODELS = ("claude-sonnet-4-5", "gpt-x", "gemini-y")
ALL = pytest.mark.parametrize("name", list(CLIENTS))


class Ran:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err
        assert "Traceback" not in out + err, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def findings(self, result: str) -> str:
        found = self.json["report"]["findings"]
        return "\n".join(
            f"{f['text']}; {f.get('advice', '')}" for f in found if f["result"] == result
        )


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AI_GATEWAY_TOKEN", raising=False)

    def run(*arguments: str, stdin: str = "") -> Ran:
        bytes_in = io.BytesIO(stdin.encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(bytes_in, "utf-8"))
        capsys.readouterr()
        try:
            status = main(("connect", *arguments))
        except SystemExit as left:
            status = int(left.code or 0)
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def vendor() -> Iterator[tuple[MockProvider, str]]:
    mock = MockProvider(models=MODELS)
    with serve_in_thread(mock) as url:
        yield mock, url


@pytest.fixture
def serve(vendor: tuple[MockProvider, str]) -> Iterator[Callable[..., str]]:
    """Serves a shim of a class over the mock, and returns its URL."""
    mock, url = vendor
    mock.reset()
    running: list[Any] = []

    def serve(kind: type[Shim] = AIShim, models: tuple[str, ...] = MODELS) -> str:
        row = ANTHROPIC.using("sk-vendor", base_url=url)
        shim = kind(ProviderRouter(dict.fromkeys(models, row)))
        app = Authenticate(shim, verify=static_tokens({TOKEN: "team"}))
        running.append(serve_in_thread(app))
        return str(running[-1].__enter__())

    yield serve
    for each in running:
        each.__exit__(None, None, None)


# ── the configuration ────────────────────────────────────────────────────────


@ALL
def test_the_token_is_a_reference_unless_it_is_wanted(run: Run, name: str) -> None:
    arguments = (name, "--token", TOKEN, "--no-check")
    hidden, shown = run(*arguments), run(*arguments, "--show-token")
    assert TOKEN not in hidden.out + hidden.err
    assert "AI_GATEWAY_TOKEN" in hidden.out
    assert TOKEN in shown.out
    assert (hidden.status, shown.status) == (0, 0)


def test_the_variable_of_the_token_may_have_any_name(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", TOKEN)
    ran = run("codex", "--token", "env:TEAM_TOKEN", "--no-check")
    assert 'env_key = "TEAM_TOKEN"' in ran.out
    assert "GATEWAY_TOKEN" not in ran.out
    missing = run("codex", "--token", "env:NOT_SET", "--no-check")
    assert (missing.status, "NOT_SET is not set" in missing.err) == (2, True)


@ALL
@pytest.mark.parametrize("given", ["{}", "{}/", "{}/v1", "{}/v1/", "{}/v1beta"])
def test_the_url_may_have_what_clients_append(run: Run, name: str, given: str) -> None:
    url = given.format("https://gateway.example/ai")
    ran = run(name, "--url", url, "--no-check", "--model", "m")
    assert "https://gateway.example/ai" in ran.out
    assert not any(twice in ran.out for twice in ("v1/v1", "v1beta/v1", "ai//"))


@pytest.mark.parametrize(
    "url",
    ["gateway.example", "ftp://x", "https://", "https://u:p@x/", "http://x/?a=1", "http://x:y"],
)
def test_a_url_that_is_not_a_gateways_is_refused(run: Run, url: str) -> None:
    ran = run("codex", "--url", url, "--no-check")
    assert (ran.status, "--url must be" in ran.err) == (2, True)
    assert "u:p" not in ran.err


def test_the_output_is_json_on_request(run: Run) -> None:
    setup = run("claude-code", "--no-check", "--json", "--model", "m").json["setup"]
    assert setup["environment"]["ANTHROPIC_MODEL"] == "m"
    assert setup["file"]["path"] == "~/.claude/settings.json"


PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["claude-code", "codex", "gemini-cli", "opencode"])
def test_the_page_about_agents_shows_what_is_printed(name: str) -> None:
    access = GatewayAccess(
        url="https://gateway.example/ai", model=CLIENTS[name].model, websocket=True
    )
    setup = CLIENTS[name].setup(access)
    assert file_text(setup) in PAGE or name == "claude-code"
    for line in environment_lines(setup):
        assert f"\n    {line}\n" in PAGE


def test_the_page_about_agents_names_each_client() -> None:
    assert [name for name in CLIENTS if f"`{name}`" not in PAGE] == []


# ── the file ─────────────────────────────────────────────────────────────────


def test_nothing_is_written_unless_wanted(run: Run, tmp_path: Path) -> None:
    for name in CLIENTS:
        run(name, "--no-check")
    assert list(tmp_path.iterdir()) == []


def test_a_json_file_keeps_what_is_in_it_and_its_previous_content(run: Run, tmp_path: Path) -> None:
    path = tmp_path / ".claude" / "settings.json"
    path.parent.mkdir()
    before = {"permissions": {"allow": ["Bash"]}, "env": {"OTHER": "1", "ANTHROPIC_MODEL": "old"}}
    path.write_text(json.dumps(before))
    path.chmod(0o640)
    ran = run("claude-code", "--no-check", "--write", "--model", "new", "--token", TOKEN)
    assert ran.status == 0
    written = json.loads(path.read_text())
    assert written["permissions"] == before["permissions"]
    assert written["env"]["OTHER"] == "1"
    assert written["env"]["ANTHROPIC_MODEL"] == "new"
    assert TOKEN not in path.read_text()
    (copy,) = path.parent.glob("settings.json.*.bak")
    assert json.loads(copy.read_text()) == before
    assert str(copy) in ran.out
    assert {p.stat().st_mode & 0o777 for p in (path, copy)} == {0o640}
    again = run("claude-code", "--no-check", "--write", "--model", "new", "--token", TOKEN)
    assert again.status == 0
    assert len(list(path.parent.iterdir())) == 2  # nothing has changed: no second copy


def test_a_new_file_is_for_its_owner_only(run: Run, tmp_path: Path) -> None:
    ran = run("opencode", "--no-check", "--write", "--token", TOKEN, "--show-token")
    assert ran.status == 0
    path = tmp_path / ".config" / "opencode" / "opencode.json"
    assert json.loads(path.read_text())["provider"]["aiproxy"]["options"]["apiKey"] == TOKEN
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_toml_file_keeps_what_is_in_it_comments_included(run: Run, tmp_path: Path) -> None:
    path = tmp_path / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text('# Mine.\nmodel = "old" # a comment\nnotify = ["say"]\n\n[tui]\ntheme = "x"\n')
    assert run("codex", "--no-check", "--write", "--model", "new").status == 0
    text = path.read_text()
    found = tomllib.loads(text)
    assert (found["model"], found["model_provider"]) == ("new", "aiproxy")
    assert (found["notify"], found["tui"]) == (["say"], {"theme": "x"})
    assert found["model_providers"]["aiproxy"]["wire_api"] == "responses"
    assert text.startswith("# Mine.\n")
    (copy,) = path.parent.glob("*.bak")
    assert tomllib.loads(copy.read_text())["model"] == "old"


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("claude-code", ".claude/settings.json", '{"env": {}} // a comment'),
        ("claude-code", ".claude/settings.json", '{"env": "none"}'),
        ("claude-code", ".claude/settings.json", "[]"),
        ("claude-code", ".claude/settings.json", b"\xff\xfe"),
        ("codex", ".codex/config.toml", "model = "),
        ("codex", ".codex/config.toml", "[model_providers]\naiproxy = { name = 'x' }\n"),
        ("codex", ".codex/config.toml", 'model_providers.aiproxy.name = "x"\n'),
        ("codex", ".codex/config.toml", 'model = """\nold\n"""\n'),
    ],
)
def test_a_file_that_is_not_understood_is_left_as_it_is(
    run: Run, tmp_path: Path, name: str, path: str, text: str | bytes
) -> None:
    file = tmp_path / path
    file.parent.mkdir()
    data = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(data)
    ran = run(name, "--no-check", "--write")
    assert ran.status == 2
    assert path.rpartition("/")[2] in ran.err
    assert [p.read_bytes() for p in file.parent.iterdir()] == [data]


def test_a_client_without_a_file_says_so(run: Run) -> None:
    ran = run("openai-python", "--no-check", "--write")
    assert (ran.status, "no configuration file" in ran.err) == (2, True)


def test_the_file_can_be_another(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "project" / "opencode.json"
    assert run("opencode", "--no-check", "--write", "--file", str(path)).status == 0
    assert json.loads(path.read_text())["model"].startswith("aiproxy/")


# ── models for Codex ─────────────────────────────────────────────────────────

INSTALLED = {
    "models": [
        {"slug": "gpt-9", "display_name": "GPT-9", "use_responses_lite": True, "context_window": 9},
        {
            "slug": "gpt-8",
            "display_name": "GPT-8",
            "context_window": 8,
            "new": 1,
            "upgrade": "gpt-9",
        },
    ]
}


@pytest.fixture
def codex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a program `codex` that prints a text as its list of models."""

    def codex(printed: str) -> None:
        program = tmp_path / "bin" / "codex"
        program.parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / "printed").write_text(printed)
        program.write_text(f'#!/bin/sh\n[ "$*" = "debug models" ] && cat {tmp_path}/bin/printed\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return codex


def test_codex_gets_a_list_of_the_gateways_models(
    run: Run, serve: Callable[..., str], codex: Callable[[str], None], tmp_path: Path
) -> None:
    codex(json.dumps(INSTALLED))
    arguments = ("codex", "--url", serve(models=("claude-x", "gpt-9")), "--token", TOKEN)
    assert run(*arguments, "--write", "--catalog", "--context-window", "150000").status == 0
    settings = tomllib.loads((tmp_path / ".codex" / "config.toml").read_text())
    path = Path(settings["model_catalog_json"])
    assert path.is_absolute()
    made, known = json.loads(path.read_text())["models"]
    assert known == INSTALLED["models"][0]
    assert made == {
        "slug": "claude-x",
        "display_name": "claude-x",
        "context_window": 150_000,
        "new": 1,
        "upgrade": None,
    }


@pytest.mark.parametrize(
    "printed", ["", "[]", '{"models": []}', '{"models": [{}]}', '{"models": [1]}', "<html>"]
)
def test_a_list_of_codex_that_is_not_understood_is_not_changed(
    run: Run, codex: Callable[[str], None], tmp_path: Path, printed: str
) -> None:
    codex(printed)
    ran = run("codex", "--no-check", "--write", "--catalog")
    assert (ran.status, "not understood" in ran.err) == (2, True)
    assert not (tmp_path / ".codex").exists()


def test_a_list_for_codex_needs_codex(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nothing")
    assert "no program codex" in run("codex", "--no-check", "--write", "--catalog").err
    assert "is for codex" in run("opencode", "--no-check", "--write", "--catalog").err
    assert "together with --write" in run("codex", "--no-check", "--catalog").err


# ── the checks ───────────────────────────────────────────────────────────────


@ALL
def test_a_gateway_that_serves_a_client_has_nothing_missing(
    run: Run, serve: Callable[..., str], vendor: tuple[MockProvider, str], name: str
) -> None:
    ran = run(name, "--url", serve(), "--token", TOKEN, "--call", "--json")
    assert (ran.status, ran.findings("missing")) == (0, "")
    report = ran.json["report"]
    assert report["models"] == list(MODELS)
    assert "models are listed" in ran.findings("ok")
    assert "'Hello from the mock.' (12 tokens in, 7 out)" in ran.findings("ok")
    assert TOKEN not in ran.out
    mock, _ = vendor
    (called,) = mock.requests  # and no check but that called a model
    assert (called.model, called.streamed) == ("claude-sonnet-4-5", True)


@ALL
def test_a_refused_token_is_what_is_missing(run: Run, serve: Callable[..., str], name: str) -> None:
    ran = run(name, "--url", serve(), "--token", "stolen-token", "--json")
    assert ran.status == 1
    assert "the token is refused (401" in ran.findings("missing")
    assert "tokens issue" in ran.findings("missing")
    nothing = run(name, "--url", serve(), "--json")
    assert "a token is required (401" in nothing.findings("missing")


def test_a_gateway_that_does_not_run_is_what_is_missing(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    ran = run("codex", "--url", url)
    assert ran.status == 1
    assert "cannot be reached" in ran.out
    assert "python -m asgi_aiproxy serve" in ran.out


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (OpenAIShim, "claude-code", "not in the form of Anthropic's API"),
        (OpenAIShim, "gemini-cli", "GET /v1beta/models is not served (404"),
        (AnthropicShim, "opencode", "POST /v1/chat/completions is not served (404"),
    ],
)
def test_a_gateway_without_the_clients_api_is_named(
    run: Run, serve: Callable[..., str], kind: type[Shim], name: str, words: str
) -> None:
    ran = run(name, "--url", serve(kind), "--token", TOKEN, "--json")
    assert ran.status == 1
    assert words in ran.findings("missing")
    assert "AIShim" in ran.findings("missing")


def test_a_wrong_mount_is_named(run: Run, serve: Callable[..., str]) -> None:
    ran = run("codex", "--url", serve() + "/ai", "--token", TOKEN, "--json")
    assert (ran.status, "without /v1" in ran.findings("missing")) == (1, True)


def test_a_model_that_is_not_listed_is_noted(run: Run, serve: Callable[..., str]) -> None:
    ran = run("codex", "--url", serve(), "--token", TOKEN, "--model", "other", "--json")
    assert ran.status == 0  # it may be reachable by a pattern
    assert "the model 'other' is not listed" in ran.findings("note")
    assert ran.json["setup"]["file"]["members"]["model"] == "other"


def test_claude_code_is_warned_of_names_that_it_hides(run: Run, serve: Callable[..., str]) -> None:
    ran = run("claude-code", "--url", serve(models=MODELS[1:]), "--token", TOKEN, "--json")
    assert "does not offer gpt-x, gemini-y" in ran.findings("note")
    assert ran.json["setup"]["environment"]["ANTHROPIC_MODEL"] == "gpt-x"


def test_a_failed_call_is_what_is_missing(
    run: Run, serve: Callable[..., str], vendor: tuple[MockProvider, str]
) -> None:
    vendor[0].always(Fault.status(400, "This account has no credit."))
    ran = run("claude-code", "--url", serve(), "--token", TOKEN, "--call", "--json")
    assert ran.status == 1
    assert "This account has no credit." in ran.findings("missing")


def test_codex_uses_a_websocket_where_one_is_served(run: Run, serve: Callable[..., str]) -> None:
    """The gateway of the test answers the handshake; what it then does is for other tests."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            listed = json.dumps({"object": "list", "data": [{"id": "m"}]}).encode()
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": listed})

    with serve_in_thread(app) as url:
        ran = run("codex", "--url", url, "--json")
    assert "WebSocket /v1/responses is served" in ran.findings("ok")
    provider = ran.json["setup"]["file"]["members"]["model_providers"]["aiproxy"]
    assert provider["supports_websockets"] is True


def test_something_that_is_not_a_gateway_is_named(run: Run) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>Welcome</html>"})

    with serve_in_thread(page) as url:
        for name in CLIENTS:
            ran = run(name, "--url", url, "--json")
            assert ran.status == 1
            assert "not in the form of" in ran.findings("missing")


def test_a_redirect_is_named(run: Run) -> None:
    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"location", b"https://elsewhere.example/")]
            await send({"type": "http.response.start", "status": 308, "headers": headers})
            await send({"type": "http.response.body"})

    with serve_in_thread(elsewhere) as url:
        ran = run("gemini-cli", "--url", url, "--json")
    assert (ran.status, "is redirected (308)" in ran.findings("missing")) == (1, True)


def test_a_vendors_own_api_behind_the_proxy_serves_its_clients(
    run: Run, vendor: tuple[MockProvider, str]
) -> None:
    mock, url = vendor
    mock.reset()
    proxy = PassthroughProxy(ANTHROPIC.using("sk-vendor", base_url=url))
    app = Authenticate(proxy, verify=static_tokens({TOKEN: "team"}))
    with serve_in_thread(app) as gateway:
        ran = run("claude-code", "--url", gateway, "--token", TOKEN, "--call", "--json")
    assert (ran.status, ran.findings("missing")) == (0, "")
