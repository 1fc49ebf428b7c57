"""Tools that are grouped in namespaces, as Codex groups the tools of an MCP server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects import OpenAIChat, OpenAIResponses
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.dialects.openai_responses.tools import decode_tools
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import Request, Response, ToolCall, ToolChoice, fold, unfold
from tests.support.stream_fixtures import cut

DIALECT = OpenAIResponses(now=lambda: 1_700_000_000.5, new_id=lambda: "new")
OPERATION = Operation("responses", "/responses", chat=True)

READ = {"type": "function", "name": "read", "description": "Reads.", "parameters": {}}
PATCH = {"type": "custom", "name": "patch", "description": "Patches."}
FILES = {"type": "namespace", "name": "mcp__files__", "description": "Files.", "tools": []}
WEB = {"type": "namespace", "name": "web", "description": "The web.", "tools": [READ]}
TOOLS = [{**FILES, "tools": [READ, PATCH]}, WEB, READ]


def read(**body: Any) -> Request:
    data = json.dumps({"model": "m", "input": "Hi.", "tools": TOOLS, **body}).encode()
    return DIALECT.decode_request(OPERATION, data)


def test_each_tool_of_a_namespace_is_a_function_for_other_vendors() -> None:
    body = OpenAIChat().encode_request(read()).body
    names = [tool["function"]["name"] for tool in body["tools"]]
    assert names == ["mcp__files__read", "mcp__files__patch", "web__read", "read"]
    assert body["tools"][0]["function"]["description"] == "Reads."


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("mcp__files__read", ("function_call", "mcp__files__", "read")),
        ("mcp__files__patch", ("custom_tool_call", "mcp__files__", "patch")),
        ("web__read", ("function_call", "web", "read")),
        ("read", ("function_call", None, "read")),
    ],
)
def test_a_call_names_its_namespace_and_its_tool_separately(
    streamed: bool, called: str, expected: tuple[str, str | None, str]
) -> None:
    request = read(stream=streamed)
    call = ToolCall("c1", called, '{"input":"x"}')
    answer = Response(id="a", model="m", blocks=(call,))
    events = list(_answered(request, answer, streamed=streamed))
    for item in events:
        assert (item["type"], item.get("namespace"), item["name"]) == expected
    history = [*events[-1:], _result(events[-1])]
    sent = OpenAIChat().encode_request(read(input=history)).body["messages"]
    assert sent[0]["tool_calls"][0]["function"]["name"] == called  # as it was declared
    assert sent[1]["tool_call_id"] == "c1"


def _answered(request: Request, answer: Response, *, streamed: bool) -> Iterator[dict[str, Any]]:
    """The items of a call, as often as the response shows it."""
    if not streamed:
        yield json.loads(DIALECT.encode_response(answer, request))["output"][0]
        return
    encoder = DIALECT.encoder(request)
    data = b"".join([encoder.feed(event) for event in unfold(answer)])
    for event in map(json.loads, cut(SSEFramer(), [data])):
        if "item" in event:
            yield event["item"]
        if event["type"] == "response.function_call_arguments.done":
            assert event["name"] in ("read",)
    yield event["response"]["output"][0]


def _result(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "done"}


def test_a_call_of_an_earlier_turn_keeps_its_name_when_its_namespace_is_gone() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "stat", "namespace": "mcp__old__"}
    (message,) = read(input=[{**item, "arguments": "{}"}]).messages
    (call,) = message.parts
    assert isinstance(call, ToolCall)
    assert call.name == "mcp__old__stat"


def test_a_response_repeats_the_namespaces_and_the_responses_api_gets_them_back() -> None:
    answer = json.loads(DIALECT.encode_response(Response(id="a", model="m"), read()))
    assert [tool["name"] for tool in answer["tools"]] == ["mcp__files__", "web", "read"]
    assert [tool["name"] for tool in answer["tools"][0]["tools"]] == ["read", "patch"]
    call = {"type": "function_call", "call_id": "c", "name": "read", "namespace": "web"}
    sent = DIALECT.encode_request(read(input=[{**call, "arguments": "{}"}])).body
    assert [tool["name"] for tool in sent["tools"]] == ["mcp__files__", "web", "read"]
    assert (sent["input"][0]["namespace"], sent["input"][0]["name"]) == ("web", "read")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_of_a_namespace_is_read_from_an_answer(streamed: bool) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "read", "namespace": "web"}
    item = {"id": "fc_1", "status": "completed", "arguments": "{}", **call}
    if streamed:
        decoder = DIALECT.decoder()
        answer = {"id": "r", "model": "m", "output": [item], "status": "completed"}
        frames = [
            {"type": "response.created", "response": {**answer, "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": answer},
        ]
        events = [e for frame in frames for e in decoder.feed(json.dumps(frame).encode())]
        blocks = fold([*events, *decoder.close()]).blocks
    else:
        body = {"id": "r", "model": "m", "output": [item], "status": "completed"}
        blocks = DIALECT.decode_response(json.dumps(body).encode()).blocks
    named = {"openai_responses": {"namespace": "web", "name": "read"}}
    assert blocks == (ToolCall("c", "web__read", "{}", named),)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "function", "name": "read", "namespace": "web"}, ("web__read",)),
        ({"type": "function", "name": "read"}, ("read",)),
        ({"type": "custom", "name": "patch"}, ("mcp__files__patch",)),
    ],
)
def test_a_tool_of_a_namespace_can_be_forced(choice: dict[str, str], names: tuple[str]) -> None:
    assert read(tool_choice=choice).tool_choice == ToolChoice("required", names)


def test_a_namespace_can_be_allowed_as_a_whole() -> None:
    allowed = [{"type": "namespace", "name": "mcp__files__"}, {"type": "function", "name": "read"}]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": allowed}
    names = ("mcp__files__read", "mcp__files__patch", "read")
    assert read(tool_choice=choice).tool_choice == ToolChoice("auto", names)


@pytest.mark.parametrize(
    ("group", "param"),
    [
        ({"type": "namespace", "tools": []}, "tools[0].name"),
        ({"type": "namespace", "name": "n"}, "tools[0].tools"),
        ({**FILES, "tools": [READ, 1]}, "tools[0].tools[1]"),
        ({**FILES, "tools": [{"type": "web_search"}]}, "tools[0].tools[0]"),
        ({**FILES, "tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
        ({**FILES, "tools": [{**READ, "parameters": 1}]}, "tools[0].tools[0].parameters"),
    ],
)
def test_invalid_members_of_a_namespace_are_named(group: dict[str, Any], param: str) -> None:
    with pytest.raises(APIError) as caught:
        read(tools=[group])
    assert (caught.value.param, caught.value.status) == (param, 400)


names = st.text(min_size=1, max_size=70) | st.sampled_from(["a", "a__b", "b", "a__", "b__c", "_"])


@given(st.lists(st.tuples(names, names), min_size=1, max_size=8, unique=True), st.lists(names))
def test_functions_of_namespaces_have_valid_names_of_their_own(
    pairs: list[tuple[str, str]], plain: list[str]
) -> None:
    groups = [{**FILES, "name": group, "tools": [{**READ, "name": name}]} for group, name in pairs]
    plain_tools = [{**READ, "name": name} for name in dict.fromkeys(plain)]
    tools, _ = decode_tools(("tools", tool) for tool in [*groups, *plain_tools])
    found = [tool.name for tool in tools]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in found[: len(pairs)])


# ── tools that are declared in items ─────────────────────────────────────────

SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
}
HI = {"type": "message", "role": "user", "content": "Hi."}


def added(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": list(tools)}


def test_additional_tools_are_tools_for_other_vendors_and_no_message() -> None:
    request = read(tools=None, input=[added({**FILES, "tools": [READ, PATCH]}, READ), HI])
    body = OpenAIChat().encode_request(request).body
    assert [tool["function"]["name"] for tool in body["tools"]] == [
        "mcp__files__read",
        "mcp__files__patch",
        "read",
    ]
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert OpenAIChat().encode_request(request).ignored == ()
    call = ToolCall("c1", "mcp__files__patch", '{"input":"x"}')
    (item, *_) = _answered(request, Response(id="a", model="m", blocks=(call,)), streamed=False)
    assert (item["type"], item["namespace"], item["name"]) == (
        "custom_tool_call",
        "mcp__files__",
        "patch",
    )


def test_of_two_declarations_of_one_tool_the_later_counts() -> None:
    files = {**FILES, "tools": [READ]}
    newer = {**FILES, "tools": [{**READ, "description": "Reads more."}]}
    request = read(tools=[files, READ], input=[HI, added(newer), HI, added(newer)])
    assert [(tool.name, tool.description) for tool in request.tools] == [
        ("mcp__files__read", "Reads more."),
        ("read", "Reads."),
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_search_that_the_client_executes_is_a_function_for_other_vendors(
    streamed: bool,
) -> None:
    request = read(tools=[SEARCH], stream=streamed)
    (tool,) = OpenAIChat().encode_request(request).body["tools"]
    assert tool["function"]["name"] == "tool_search"
    assert tool["function"]["parameters"] == SEARCH["parameters"]
    call = ToolCall("c1", "tool_search", '{"query":"files"}')
    answer = Response(id="a", model="m", blocks=(call,))
    for item in _answered(request, answer, streamed=streamed):
        kind = {"type": "tool_search_call", "execution": "client", "call_id": "c1"}
        assert kind.items() <= item.items()
    assert (item["arguments"], item["status"]) == ({"query": "files"}, "completed")
    echoed = json.loads(DIALECT.encode_response(answer, request))
    assert echoed["tools"] == [SEARCH]

    found = {
        "type": "tool_search_output",
        "execution": "client",
        "call_id": "c1",
        "status": "completed",
    }
    history = [
        HI,
        item,
        {**found, "tools": [{**FILES, "tools": [{**READ, "defer_loading": True}]}]},
    ]
    body = OpenAIChat().encode_request(read(tools=[SEARCH], input=history)).body
    assert [tool["function"]["name"] for tool in body["tools"]] == [
        "tool_search",
        "mcp__files__read",
    ]
    called, result = body["messages"][1:]
    assert called["tool_calls"][0]["function"] == {
        "name": "tool_search",
        "arguments": '{"query":"files"}',
    }
    assert (result["role"], result["tool_call_id"]) == ("tool", "c1")
    assert result["content"] == "Tools found: mcp__files__read"


def test_a_search_that_found_nothing_says_so() -> None:
    call = {"type": "tool_search_call", "execution": "client", "call_id": "c1", "arguments": {}}
    result = {"type": "tool_search_output", "execution": "client", "call_id": "c1", "tools": []}
    body = OpenAIChat().encode_request(read(tools=[SEARCH], input=[HI, call, result])).body
    assert body["messages"][-1]["content"] == "No tools found."


def test_a_hosted_tool_search_is_reported_as_ignored() -> None:
    hosted = {"type": "tool_search"}
    call = {"type": "tool_search_call", "execution": "server", "arguments": {}}
    sent = OpenAIChat().encode_request(read(tools=[hosted, READ], input=[HI, call, HI]))
    assert [tool["function"]["name"] for tool in sent.body["tools"]] == ["read"]
    assert set(sent.ignored) == {"tools", "messages[].content"}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "additional_tools", "role": "developer"}, "input[1].tools"),
        ({"type": "additional_tools", "tools": {}}, "input[1].tools"),
        ({"type": "additional_tools", "tools": [1]}, "input[1].tools[0]"),
        (added({"type": "function"}), "input[1].tools[0].name"),
        (added({**FILES, "tools": [{"type": "custom"}]}), "input[1].tools[0].tools[0].name"),
        ({"type": "tool_search_call", "execution": "client"}, "input[1].call_id"),
        ({"type": "tool_search_output", "execution": "client", "tools": []}, "input[1].call_id"),
        ({"type": "tool_search_output", "execution": "client", "call_id": "c"}, "input[1].tools"),
    ],
)
def test_invalid_members_of_an_item_with_tools_are_named(item: dict[str, Any], param: str) -> None:
    with pytest.raises(APIError) as caught:
        read(tools=[SEARCH], input=[HI, item])
    assert (caught.value.param, caught.value.status) == (param, 400)


def test_a_message_that_mentions_additional_tools_is_a_message() -> None:
    text = '{"type": "additional_tools"}'
    request = read(input=[{"type": "message", "role": "user", "content": text}])
    assert [tool.name for tool in request.tools][:1] == ["mcp__files__read"]
    assert request.messages[0].role == "user"
