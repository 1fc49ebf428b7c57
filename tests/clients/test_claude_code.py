"""What Claude Code and Anthropic's SDKs send, natively to Anthropic and to other vendors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from asgi_aiproxy import AIShim, ProviderRouter
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import Fault, MockProvider, serve

pytestmark = pytest.mark.anyio

OTHERS = pytest.mark.parametrize("model", ["gpt-5", "gemini-2.5-pro"])
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,new-beta-2027-01-01"
# As bytes, because prompt caches and the vendor's attribution depend on every one of them.
SYSTEM = (
    b'[ {"type":"text", "text":"x-anthropic-billing-header: cc_version=2.1.332;"},'
    b'\n  {"type":"text","text":"You are Claude\\u0020Code. \\u00e9",'
    b'"cache_control":{"type":"ephemeral"}},'
    b' {"text":"\xc3\xa9","type":"text","cache_control":{"ttl":"1h","type":"ephemeral"}} ]'
)
TOOLS = (
    b'[{"name":"Bash","description":"Runs.","input_schema":{"type":"object","properties":{}},'
    b'"cache_control":{"type":"ephemeral"}},{"name":"Later","defer_loading":true,"strict":true,'
    b'"input_schema":{"type":"object","properties":{}, "x-odd": 1.50}}]'
)
MESSAGES = b'[{"role":"user","content":[{"type":"text","text":"Hi \\ud83d\\ude00"}]}]'
REST: dict[str, Any] = {
    "max_tokens": 32000,
    "thinking": {"type": "adaptive", "display": "updates"},
    "output_config": {"effort": "high", "task_budget": {"type": "tokens", "total": 50000}},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "metadata": {"user_id": "user_abc_account_def_session_123"},
}


def body(model: str) -> bytes:
    rest = json.dumps({"model": model, **REST}).encode()[:-1]
    return rest + b',"system":' + SYSTEM + b',"tools":' + TOOLS + b',"messages":' + MESSAGES + b"}"


@dataclass
class World:
    url: str
    mock: MockProvider

    async def post(self, content: bytes, path: str = "/v1/messages?beta=true") -> httpx.Response:
        headers = {
            "authorization": "Bearer any",
            "anthropic-version": "2026-10-21",
            "anthropic-beta": BETAS,
            "content-type": "application/json",
        }
        async with httpx.AsyncClient() as client:
            return await client.post(self.url + path, content=content, headers=headers)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    mock = MockProvider()
    async with serve(mock) as vendors:
        router = ProviderRouter(
            {
                "claude-alias": (
                    ANTHROPIC.using("sk-a", base_url=vendors),
                    "claude-sonnet-4-5",
                ),
                "gpt-*": OPENAI.using("sk-o", base_url=f"{vendors}/v1"),
                "gemini-*": GEMINI.using("sk-g", base_url=vendors),
            }
        )
        async with serve(AIShim(router, attempts=1)) as url:
            yield World(url, mock)


async def test_anthropic_gets_every_byte_but_the_models_name(world: World) -> None:
    answer = await world.post(body("claude-alias"))
    assert answer.status_code == 200
    (seen,) = world.mock.requests
    assert (seen.path, seen.query) == ("/v1/messages", "beta=true")
    assert seen.headers["anthropic-version"] == "2026-10-21"
    assert seen.headers["anthropic-beta"] == BETAS
    for part in (SYSTEM, TOOLS, MESSAGES):
        assert part in seen.body
    compact = json.dumps({"model": "claude-sonnet-4-5", **REST}, separators=(",", ":")).encode()
    plain = seen.body.replace(b", ", b",").replace(b": ", b":")
    assert plain.startswith(compact[:-1] + b',"system":')
    assert json.loads(seen.body) == json.loads(body("claude-sonnet-4-5"))


async def test_two_turns_share_their_prefix_so_that_anthropics_cache_is_hit(world: World) -> None:
    await world.post(body("claude-alias"))
    more = b',{"role":"assistant","content":"Hello."},{"role":"user","content":"Go on."}]}'
    await world.post(body("claude-alias")[:-2] + more)
    first, second = (seen.body for seen in world.mock.requests)
    assert second.startswith(first[:-2])


@OTHERS
async def test_other_vendors_get_what_they_know_and_the_rest_is_named(
    world: World, model: str
) -> None:
    answer = await world.post(body(model))
    assert answer.status_code == 200
    ignored = answer.headers["aiproxy-ignored"].split(", ")
    assert {"context_management", "output_config.task_budget", "cache_control"} <= set(ignored)
    assert {f"anthropic-beta: {beta}" for beta in BETAS.split(",")} <= set(ignored)
    (seen,) = world.mock.requests
    assert "beta" not in seen.query
    assert not any(name.startswith("anthropic") for name in seen.headers)
    text = seen.body.decode()
    for foreign in ("context_management", "task_budget", "cache_control", "defer_loading"):
        assert foreign not in text
    assert "Bash" in text
    assert "Later" in text
    assert "You are Claude Code." in text


@OTHERS
@pytest.mark.parametrize(
    "error",
    [
        (400, "invalid_request_error", "prompt is too long: 209000 tokens > 200000 maximum"),
        (413, "request_too_large", "Request exceeds the maximum size"),
        (429, "rate_limit_error", "This request would exceed your rate limit."),
        (529, "overloaded_error", "Overloaded"),
        (500, "api_error", "Internal server error"),
    ],
)
async def test_anthropics_errors_arrive_to_the_byte_and_others_in_its_shape(
    world: World, model: str, error: tuple[int, str, str]
) -> None:
    status, kind, message = error
    details = {"type": kind, "message": message, "details": {"new": [1, 2.50]}}
    raw = json.dumps({"type": "error", "error": details, "request_id": "req_x"}).encode()
    world.mock.script(Fault.status(status, body=raw))
    answer = await world.post(body("claude-alias"))
    assert answer.content == raw
    assert answer.status_code == (502 if status == 500 else status)
    world.mock.script(Fault.status(503 if status == 529 else status, message))
    answer = await world.post(body(model))
    assert answer.json()["type"] == "error"
    assert message in answer.json()["error"]["message"]


async def test_what_anthropic_says_of_the_gateways_key_is_not_shown(world: World) -> None:
    raw = b'{"type":"error","error":{"type":"authentication_error","message":"invalid sk-a"}}'
    world.mock.script(Fault.status(401, body=raw))
    answer = await world.post(body("claude-alias"))
    assert answer.status_code == 502
    assert b"sk-a" not in answer.content


CLIENT_TOOLS = [
    {"type": "bash_20250124", "name": "bash"},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    {"type": "memory_20250818", "name": "memory"},
    {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
    {"type": "custom", "name": "own", "input_schema": {"type": "object"}, "defer_loading": True},
]


def asking(model: str, tools: list[Any]) -> bytes:
    messages = [{"role": "user", "content": "Hi."}]
    return json.dumps(
        {"model": model, "max_tokens": 99, "messages": messages, "tools": tools}
    ).encode()


@OTHERS
async def test_tools_that_the_client_runs_are_functions_for_other_vendors(
    world: World, model: str
) -> None:
    answer = await world.post(asking(model, CLIENT_TOOLS))
    assert answer.status_code == 200
    assert "tools[].type: tool_search_tool_regex_20251119" in answer.headers["aiproxy-ignored"]
    sent = world.mock.requests[0].json["tools"]
    found = sent[0]["functionDeclarations"] if model.startswith("gemini") else sent
    found = [tool.get("function", tool) for tool in found]
    names = [tool["name"] for tool in found]
    assert names == ["bash", "str_replace_based_edit_tool", "memory", "own"]
    schema = found[1].get("parameters") or found[1]["parametersJsonSchema"]
    assert "insert_line" in schema["properties"]


@OTHERS
@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "code_execution_20250825", "name": "code_execution"},
        {"type": "computer_20251124", "name": "computer"},
        {"type": "new_tool_20270101", "name": "new"},
    ],
)
async def test_tools_that_anthropic_runs_are_refused_by_name_and_sent_to_anthropic(
    world: World, model: str, tool: dict[str, str]
) -> None:
    answer = await world.post(asking(model, [CLIENT_TOOLS[-1], tool]))
    assert answer.status_code == 400
    assert f"tools[1]: Anthropic's own tool '{tool['type']}'" in answer.json()["error"]["message"]
    answer = await world.post(asking("claude-alias", [tool]))
    assert answer.status_code == 200
    assert world.mock.requests[0].json["tools"] == [tool]


async def test_clients_find_the_api_at_its_root(world: World) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.head(world.url + "/")
    assert (answer.status_code, answer.content) == (200, b"")
