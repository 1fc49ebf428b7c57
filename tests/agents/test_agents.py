"""Coding agents finish a turn with tools through the gateway, over each vendor's API, offline.

The agent is asked to read a file, edit it and run it; the model is a script (`AgentModel`). The
configuration of each agent is the one that `python -m asgi_aiproxy connect` writes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asgi_aiproxy.connect.codex_models import codex_catalog
from tests.agents.conftest import NODE, AgentWorld, Found
from tests.support.agent_model import offered_tools

PROMPT = "Read greet.py, let it say bonjour instead of hello, and run it."
CLAUDE_CODE = "node_modules/@anthropic-ai/claude-code-*/claude"
CODEX = "node_modules/@openai/codex-*/vendor/*/bin/codex"
OPENCODE = "node_modules/opencode-*/bin/opencode"
GEMINI_CLI = "node_modules/@google/gemini-cli/bundle/gemini.js"


@pytest.mark.parametrize("output", ["json", "stream-json"])
def test_claude_code_finishes_a_turn_with_tools(
    world: AgentWorld, program: Found, output: str
) -> None:
    env = world.configure("claude-code", "claude-sonnet-4-5")
    # (It refuses to run as root without questions unless in a sandbox.)
    env |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "IS_SANDBOX": "1"}
    how = ["--dangerously-skip-permissions", "--verbose", "--output-format", output]
    world.check_turn(world.run(program(CLAUDE_CODE), "-p", PROMPT, *how, env=env))
    # (It also lists the models, which `connect` switched on.)
    assert set(world.requests) == {("POST", "/v1/messages"), ("GET", "/v1/models")}


# A model that is not in Codex's list, one of the list, and one whose tools are in an item of input.
CODEX_MODELS = pytest.mark.parametrize("model", ["team-model", "gpt-5.5", "gpt-6.2-sol"])


@CODEX_MODELS
def test_codex_finishes_a_turn_with_tools(world: AgentWorld, program: Found, model: str) -> None:
    world.check_turn(_codex(world, program(CODEX), model, websocket=False))
    assert set(world.requests) == {("POST", "/v1/responses")}
    if world.vendor == "openai" and model == "gpt-6.2-sol":
        sent = world.mock.requests[0].headers
        assert sent["x-openai-internal-codex-responses-lite"] == "true"


@CODEX_MODELS
def test_codex_finishes_a_turn_with_tools_over_a_websocket(
    world: AgentWorld, program: Found, model: str
) -> None:
    world.check_turn(_codex(world, program(CODEX), model, websocket=True))
    assert set(world.requests) == {("websocket", "/v1/responses")}


def _codex(
    world: AgentWorld, program: Path, model: str, *, websocket: bool, catalog: Path | None = None
) -> str:
    settings = world.home / ".codex" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(
        (f'model_catalog_json = "{catalog}"\n' if catalog else "")
        + 'approval_policy = "never"\nsandbox_mode = "danger-full-access"\n'
        "check_for_update_on_startup = false\n\n[analytics]\nenabled = false\n\n"
        "[features]\nplugins = false\napps = false\n"
    )
    env = world.configure("codex", model, websocket=websocket)
    return world.run(program, "exec", "--skip-git-repo-check", "--json", PROMPT, env=env)


@pytest.mark.parametrize("world", ["anthropic"], indirect=True)
def test_codex_takes_the_list_of_models_that_connect_makes_of_its_own(
    world: AgentWorld, program: Found
) -> None:
    codex = program(CODEX)
    command = (codex, "debug", "models")
    installed = world.run(*command, env=world.environment()).encode()
    catalog = codex_catalog(installed, ["team-model"], context_window=150_000)
    (entry,) = catalog["models"]
    assert (entry["slug"], entry["context_window"]) == ("team-model", 150_000)
    path = world.home / "models.json"
    path.write_text(json.dumps(catalog))
    printed = _codex(world, codex, "team-model", websocket=False, catalog=path)
    world.check_turn(printed)
    assert "metadata" not in printed
    assert {"apply_patch", "tool_search"} <= {t.name for t in offered_tools(world.mock.requests[0])}


def test_gemini_cli_finishes_a_turn_with_tools(world: AgentWorld, program: Found) -> None:
    script, node = program(GEMINI_CLI), program(NODE)
    settings = world.home / ".gemini" / "settings.json"
    settings.parent.mkdir()
    off = {"privacy": {"usageStatisticsEnabled": False}, "general": {"enableAutoUpdate": False}}
    settings.write_text(json.dumps(off))
    env = world.configure("gemini-cli", "gemini-2.5-flash")
    env["GEMINI_CLI_TRUST_WORKSPACE"] = "true"
    # (It returns signatures of calls only, and the mock signs reasoning.)
    world.check_turn(world.run(node, script, "-y", "-p", PROMPT, env=env), signed=False)
    paths = {path for _, path in world.requests}
    assert paths == {"/v1beta/models/gemini-2.5-flash:streamGenerateContent"}


# The SDK with which opencode calls the gateway, and the path that it then uses.
SDKS = {
    "@ai-sdk/openai-compatible": "/v1/chat/completions",
    "@ai-sdk/openai": "/v1/responses",
    "@ai-sdk/anthropic": "/v1/messages",
    "@ai-sdk/google": "/v1beta/models/team-model:streamGenerateContent",
}
CASES = [("@ai-sdk/openai-compatible", vendor) for vendor in ("anthropic", "gemini")]
CASES += [("@ai-sdk/openai", "anthropic"), ("@ai-sdk/anthropic", "gemini")]
CASES += [("@ai-sdk/google", "openai")]


@pytest.mark.parametrize(("sdk", "world"), CASES, indirect=["world"])
def test_opencode_finishes_a_turn_with_tools(world: AgentWorld, program: Found, sdk: str) -> None:
    env = world.configure("opencode", "team-model")
    path = world.home / ".config" / "opencode" / "opencode.json"
    settings = json.loads(path.read_text())
    provider = settings["provider"]["aiproxy"]
    provider["npm"] = sdk
    if sdk == "@ai-sdk/google":
        provider["options"]["baseURL"] = f"{world.url}/v1beta"
    path.write_text(json.dumps(settings | {"autoupdate": False, "share": "disabled"}))
    for name in ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS"):
        env[f"OPENCODE_DISABLE_{name}"] = "1"
    # (It installs the types for plugins in its folder of settings.)
    env |= {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}
    printed = world.run(program(OPENCODE), "run", PROMPT, env=env)
    world.check_turn(printed, signed=sdk in ("@ai-sdk/openai", "@ai-sdk/anthropic"))
    assert {path for _, path in world.requests} == {SDKS[sdk]}
