"""What callers and operators may rely on where tools or JSON output are emulated."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from asgi_aiproxy import AIShim, ConfigurationError, ProviderRouter, UsageRecord
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.emulation import Emulation
from asgi_aiproxy.hooks import Call, TextGuard, find_words
from asgi_aiproxy.providers import ANTHROPIC, GROQ, OPENAI, Target
from asgi_aiproxy.testing import Answer, MockProvider, serve
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import (
    Step,
    Upstream,
    answers,
    chat_answer,
    chat_stream,
    refuses,
    streams,
)

pytestmark = pytest.mark.anyio

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}},
]
CALL = '1: {"toolId": "get_weather", "arguments": {"city": "Paris"}}'
TIME = '1: {"toolId": "get_time", "arguments": {}}'
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 1}},
    "required": ["city", "people"],
}


async def ask(
    *steps: Step,
    emulation: Any = None,
    path: str = "/v1/chat/completions",
    records: list[UsageRecord] | None = None,
    **body: Any,
) -> tuple[asgi.Answer, Upstream]:
    upstream = Upstream(*steps)
    emulation = Emulation() if emulation is None else emulation
    kept: list[UsageRecord] = records if records is not None else []

    async def keep(record: UsageRecord) -> None:
        kept.append(record)

    sent = {"model": "m", "messages": [{"role": "user", "content": "Weather?"}], **body}
    router = ProviderRouter({"m": Target(GROQ.using("sk-1"), "small", emulate=emulation)})
    async with AIShim(router, transport=upstream.transport, record=keep) as shim:
        return await asgi.request(shim, "POST", path, sent), upstream


def says(text: str) -> Step:
    return answers(chat_answer(text))


def message(answer: asgi.Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)["choices"][0]["message"]
    return found


def calls(answer: asgi.Answer) -> list[tuple[str, Any]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message(answer).get("tool_calls") or ()
    ]


def prompt(body: Any) -> str:
    return "\n".join(m["content"] for m in body["messages"] if isinstance(m["content"], str))


async def test_a_model_without_tools_calls_the_tools_of_the_client() -> None:
    records: list[UsageRecord] = []
    answer, upstream = await ask(says(f"{CALL}\n{TIME}"), tools=TOOLS, records=records)
    assert calls(answer) == [("get_weather", {"city": "Paris"}), ("get_time", {})]
    assert json.loads(answer.body)["choices"][0]["finish_reason"] == "tool_calls"
    assert answer.header("aiproxy-emulated") == "tools"
    (sent,) = upstream.bodies
    assert "tools" not in sent
    assert '"toolId":"get_weather"' in prompt(sent)
    assert [record.emulated for record in records] == [("tools",)]
    assert "The weather of a city." in prompt(sent)


@pytest.mark.parametrize("cut", [1, 3, 50])
async def test_a_stream_shows_text_at_once_and_calls_as_calls(cut: int) -> None:
    text = f"0: Let me see.\n{CALL}"
    pieces = [text[i : i + cut] for i in range(0, len(text), cut)]
    answer, _ = await ask(streams(*chat_stream(*pieces)), tools=TOOLS, stream=True)
    chunks = [
        json.loads(line[6:])
        for line in answer.body.decode().splitlines()
        if line.startswith("data: {")
    ]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(d.get("content") or "" for d in deltas) == "Let me see."
    found = [call for d in deltas for call in d.get("tool_calls") or ()]
    assert found[0]["function"]["name"] == "get_weather"
    assert "".join(c["function"].get("arguments", "") for c in found) == '{"city":"Paris"}'
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls" or any(
        c["choices"] and c["choices"][0]["finish_reason"] == "tool_calls" for c in chunks
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_clients_of_messages_and_gemini_get_calls_in_their_own_form(stream: bool) -> None:
    step = streams(*chat_stream(CALL[:20], CALL[20:])) if stream else says(CALL)
    schema = TOOLS[0]["function"]["parameters"]  # type: ignore[index]
    answer, _ = await ask(
        step,
        path="/v1/messages",
        max_tokens=100,
        stream=stream,
        tools=[{"name": "get_weather", "input_schema": schema}],
    )
    assert '"tool_use"' in answer.body.decode()
    assert "toolId" not in answer.body.decode()
    upstream = Upstream(streams(*chat_stream(CALL)) if stream else says(CALL))
    router = ProviderRouter({"m": Target(GROQ.using("sk-1"), "small", emulate=Emulation())})
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    async with AIShim(router, transport=upstream.transport) as shim:
        body = {
            "contents": [{"role": "user", "parts": [{"text": "Weather?"}]}],
            "tools": [{"functionDeclarations": [{"name": "get_weather"}]}],
        }
        answer = await asgi.request(shim, "POST", f"/v1beta/models/m:{method}", body)
    assert '"functionCall"' in answer.body.decode()
    assert "toolId" not in answer.body.decode()


async def test_calls_and_results_of_earlier_turns_reach_the_model_as_text() -> None:
    call = {"id": "c1", "type": "function"}
    history = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {**call, "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    answer, upstream = await ask(says("0: It rains."), tools=TOOLS, messages=history)
    assert message(answer)["content"] == "It rains."
    (sent,) = upstream.bodies
    assert {m["role"] for m in sent["messages"]} == {"system", "user", "assistant"}
    assert "TOOL_RESPONSE: get_weather" in prompt(sent)
    assert "rain" in prompt(sent)


async def test_a_call_whose_result_is_there_is_not_made_again() -> None:
    test_call = {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    history = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": test_call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    answer, upstream = await ask(says(CALL), says("It rains."), tools=TOOLS, messages=history)
    assert not calls(answer)
    assert message(answer)["content"] == "It rains."
    assert "You can use tools" not in prompt(upstream.bodies[1])


async def test_a_bare_mark_for_no_tool_is_followed_by_the_answer_without_tools() -> None:
    records: list[UsageRecord] = []
    answer, upstream = await ask(says("0:"), says("Sunny."), tools=TOOLS, records=records)
    assert message(answer)["content"] == "Sunny."
    assert len(upstream.bodies) == 2
    assert json.loads(answer.body)["usage"]["total_tokens"] == 10
    assert records[0].emulated == ("tools", "asked_without_tools")
    assert records[0].usage is not None
    assert records[0].usage.input == 6
    assert answer.header("aiproxy-emulated") == "tools, asked_without_tools"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_a_required_tool_is_called_or_the_reply_is_corrected(choice: Any) -> None:
    answer, upstream = await ask(says("It is sunny."), says(CALL), tools=TOOLS, tool_choice=choice)
    assert calls(answer) == [("get_weather", {"city": "Paris"})]
    assert "It does not call a tool" in prompt(upstream.bodies[1])
    answer, _ = await ask(says("It is sunny."), says("Really."), tools=TOOLS, tool_choice=choice)
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["code"] == "emulation_failed"


async def test_a_named_tool_is_the_only_one_that_is_called() -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    answer, upstream = await ask(says(CALL), says(TIME), tools=TOOLS, tool_choice=named)
    assert calls(answer) == [("get_time", {})]
    assert "get_weather" not in prompt(upstream.bodies[0])


async def test_no_tools_are_offered_where_the_client_forbids_them() -> None:
    answer, upstream = await ask(says("Sunny."), tools=TOOLS, tool_choice="none")
    assert message(answer)["content"] == "Sunny."
    assert "toolId" not in prompt(upstream.bodies[0])


async def test_one_call_where_the_client_wants_no_parallel_ones() -> None:
    answer, _ = await ask(says(f"{CALL}\n{TIME}"), tools=TOOLS, parallel_tool_calls=False)
    assert calls(answer) == [("get_weather", {"city": "Paris"})]


async def test_the_default_tool_is_called_where_the_model_calls_none() -> None:
    emulation = Emulation(default_tool="get_time")
    for reply in ("0:", "0: no tool", "I do not know."):
        answer, _ = await ask(says(reply), tools=TOOLS, emulation=emulation)
        assert calls(answer) == [("get_time", {})]


async def test_a_model_plans_tasks_and_does_them_one_by_one() -> None:
    emulation = Emulation(tasks=True)
    plan = '1: [{"toolId": "get_weather", "task": "Paris"}, {"toolId": "get_time", "task": "now"}]'
    upstream = Upstream(says(plan), says(CALL), says(TIME), says("Rain at noon."))
    router = ProviderRouter({"m": Target(GROQ.using("sk-1"), "small", emulate=emulation)})
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Weather and time?"}]
    found = []
    async with AIShim(router, transport=upstream.transport) as shim:
        for _ in range(3):
            body = {"model": "m", "messages": messages, "tools": TOOLS}
            answer = await asgi.request(shim, "POST", "/v1/chat/completions", body)
            found += calls(answer)
            last = message(answer)
            messages.append(last)
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": "x"}
                for call in last.get("tool_calls") or ()
            ]
    assert found == [("get_weather", {"city": "Paris"}), ("get_time", {})]
    assert last["content"] == "Rain at noon."
    assert len(upstream.bodies) == 4
    assert "Do this task now with the tool get_time: now" in prompt(upstream.bodies[2])


async def test_plans_of_one_caller_are_not_used_for_another() -> None:
    from asgi_aiproxy.emulation.plans import PlanCache
    from asgi_aiproxy.messages import Message, Request, Text

    request = Request(model="m", messages=(Message("user", (Text("a"),)),))
    assert PlanCache.key(request, "ann") != PlanCache.key(request, "bob")
    now = [0.0]
    cache = PlanCache(120, clock=lambda: now[0])
    cache.put("k", ())
    now[0] = 119
    assert cache.get("k") == ()
    now[0] = 119 + 121
    assert cache.get("k") is None


FORMAT = {"type": "json_schema", "json_schema": {"name": "town", "schema": SCHEMA}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        '{"city": "Paris", "people": 2}',
        'Here it is:\n```json\n{"city": "Paris", "people": 2}\n```',
        '```\n{"city": "Paris", "people": 2,}\n```\nDone.',
        'The town: {"city": "Paris", "people": 2} as you wanted.',
    ],
)
async def test_json_output_is_json_that_fits_the_schema(reply: str, stream: bool) -> None:
    step = streams(*chat_stream(reply[:9], reply[9:])) if stream else says(reply)
    answer, upstream = await ask(step, response_format=FORMAT, stream=stream)
    if stream:
        lines = [x[6:] for x in answer.body.decode().splitlines() if x.startswith("data: {")]
        deltas = [c["delta"] for x in lines for c in json.loads(x)["choices"]]
        content = "".join(d.get("content") or "" for d in deltas)
    else:
        content = message(answer)["content"]
    assert json.loads(content) == {"city": "Paris", "people": 2}
    assert answer.header("aiproxy-emulated") == "json_schema"
    assert "response_format" not in upstream.bodies[0]


@pytest.mark.parametrize("reply", ["Paris.", '{"city": "Paris"}', '{"city": "P", "people": 0}'])
async def test_json_that_does_not_fit_is_corrected_once(reply: str) -> None:
    right = '{"city": "Paris", "people": 2}'
    answer, _ = await ask(says(reply), says(right), response_format=FORMAT)
    assert json.loads(message(answer)["content"]) == {"city": "Paris", "people": 2}
    answer, _ = await ask(says(reply), says(reply), response_format=FORMAT)
    assert answer.status == 502


async def test_a_reply_that_cannot_be_used_leads_to_the_next_target() -> None:
    upstream = Upstream(says("no"), says("no"), says("unused"))
    small = Target(GROQ.using("sk-1"), "small", emulate=Emulation())
    upstream.steps[2] = answers(
        json.dumps(
            {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "model": "big",
                "content": [
                    {"type": "tool_use", "id": "t", "name": "get_weather", "input": {"city": "X"}}
                ],
                "stop_reason": "tool_use",
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
        ).encode()
    )
    big = Target(ANTHROPIC.using("sk-2"), "big")
    async with AIShim(ProviderRouter({"m": [small, big]}), transport=upstream.transport) as shim:
        answer = await asgi.chat(shim, model="m", tools=TOOLS, tool_choice="required")
    assert calls(answer) == [("get_weather", {"city": "X"})]
    assert answer.header("aiproxy-emulated") is None


async def test_the_error_of_a_correcting_request_is_that_of_the_provider() -> None:
    answer, _ = await ask(says("1:"), refuses(400), tools=TOOLS)
    assert answer.status == 400
    assert "no: 400" in answer.body.decode()


@pytest.mark.parametrize("reply", ["no JSON", "[]"])
async def test_headers_of_hooks_are_sent_with_further_requests_and_errors_are_guarded(
    reply: str,
) -> None:
    async def add(call: Call) -> None:
        call.send_header("x-team", "red")

    error = json.dumps({"error": {"message": "about project nemo", "type": "t"}}).encode()
    upstream = Upstream(says(reply), refuses(400, error))
    router = ProviderRouter({"m": Target(GROQ.using("sk-1"), "small", emulate=Emulation())})
    guard = TextGuard(find_words(["project nemo"]))
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with AIShim(router, transport=upstream.transport, hooks=[add, guard]) as shim:
        path = "/v1/chat/completions"
        answer = await asgi.request(shim, "POST", path, {**body, "response_format": format})
    assert [request.headers["x-team"] for request in upstream.requests] == ["red", "red"]
    assert answer.status == 400
    assert b"nemo" not in answer.body


async def test_requests_without_tools_pass_through_unchanged() -> None:
    upstream = Upstream(says("Hello"))
    provider = OPENAI.using("sk-1", emulate=Emulation())
    async with AIShim(provider, transport=upstream.transport) as shim:
        answer = await asgi.chat(shim, model="gpt-test", seed=1, made_up={"a": 1})
    assert message(answer)["content"] == "Hello"
    assert upstream.bodies[0]["made_up"] == {"a": 1}
    assert answer.header("aiproxy-emulated") is None


async def test_a_leaked_call_is_noted_in_the_record() -> None:
    records: list[UsageRecord] = []
    reply = 'Hm. <tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
    leaks = Emulation("leaked_calls")
    answer, upstream = await ask(says(reply), tools=TOOLS, emulation=leaks, records=records)
    assert calls(answer) == [("get_weather", {"city": "Paris"})]
    assert upstream.bodies[0]["tools"] == TOOLS
    assert records[0].emulated == ("leaked_calls",)
    await ask(says("Sunny."), tools=TOOLS, emulation=leaks, records=records)
    assert records[1].emulated == ()


async def test_schemas_of_callers_reach_no_network_and_end_quickly() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    reply = json.dumps({"toolId": "f", "arguments": {"a": "a" * 5000 + "!"}})
    answer, upstream = await ask(says(f"1: {reply}"), says("0: ok"), tools=tools)
    assert "does not match" in prompt(upstream.bodies[1])
    remote = {"$ref": "http://127.0.0.1:9/schema"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": remote}}]
    answer, _ = await ask(says('1: {"toolId": "f", "arguments": {}}'), tools=tools)
    assert calls(answer) == [("f", {})]


def test_a_wrong_feature_is_refused_with_the_right_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"There are: tools, json_schema, leaked_calls"):
        Emulation("tool")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="leave out"):
        Emulation(("tools", "leaked_calls"))


async def test_the_configuration_emulates_for_a_provider_and_for_a_target() -> None:
    mock = MockProvider(Answer(text=CALL))
    async with serve(mock) as url:
        text = f"""
anonymous = true
[providers.weak]
kind = "openai-compatible"
base_url = "{url}/v1"
emulate = ["tools"]
[providers.other]
kind = "openai-compatible"
base_url = "{url}/v1"
[routes]
"a" = ["weak/m"]
"b" = [{{ target = "other/m", emulate = {{ features = ["tools"], tasks = false }} }}]
"c" = ["other/m"]
"""
        async with build(Settings(**tomllib.loads(text))) as app:
            found = []
            for model in "abc":
                answer = await asgi.chat(app, "/v1/chat/completions", model=model, tools=TOOLS)
                found.append(len(calls(answer)))
    assert found == [1, 1, 0]
