"""The Responses API: requests decoded and encoded, and responses read by OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai._models import construct_type
from openai.types.responses import Response as OpenAIResponse, ResponseStreamEvent
from pydantic import TypeAdapter

from asgi_aiproxy.dialects import OpenAIResponses
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import (
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    fold,
    unfold,
)
from tests.dialects.unusual import openai_responses as unusual
from tests.dialects.unusual.case import sse
from tests.support.stream_fixtures import STREAMS, Stream, cut, decode

DIALECT = OpenAIResponses(now=lambda: 1_700_000_000.5, new_id=lambda: "new")
OPERATION = Operation("responses", "/responses", chat=True)
PNG = "iVBORw0KGgo="
CUSTOM = {"type": "custom", "name": "sql", "description": "Write SQL."}


def read(**body: Any) -> Request:
    data = json.dumps({"model": "m", "input": "Hi.", **body}).encode()
    return DIALECT.decode_request(OPERATION, data)


def written(*messages: Message, **members: Any) -> dict[str, Any]:
    return dict(DIALECT.encode_request(Request(model="m", messages=messages, **members)).body)


def user(text: str) -> Message:
    return Message("user", (Text(text),))


# ── requests in ──────────────────────────────────────────────────────────────


def test_a_string_input_becomes_a_user_message_after_the_instructions() -> None:
    assert read(instructions="Be brief.").messages == (
        Message("system", (Text("Be brief."),)),
        user("Hi."),
    )


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([{"role": "user", "content": "Hi."}], [user("Hi.")]),
        (
            [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
                {"role": "developer", "content": "Later."},
                {
                    "type": "message",
                    "role": "assistant",
                    "id": "msg_1",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
                },
            ],
            [
                user("Hi."),
                Message("system", (Text("Later."),)),
                Message("assistant", (Text("Hello."),)),
            ],
        ),
        (
            [
                {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA=", "summary": []},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT 1"},
                {"type": "function_call_output", "call_id": "c1", "output": "fine"},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "c2",
                    "output": [
                        {"type": "input_text", "text": "1"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                    ],
                },
            ],
            [
                Message(
                    "assistant",
                    (
                        Reasoning(
                            "",
                            {"openai_responses": {"encrypted_content": "gAAA=", "id": "rs_1"}},
                        ),
                        Refusal("No."),
                        ToolCall("c1", "f", "{}"),
                        ToolCall(
                            "c2",
                            "sql",
                            '{"input":"SELECT 1"}',
                            {"openai_responses": {"custom": True}},
                        ),
                    ),
                ),
                Message(
                    "user",
                    (
                        ToolResult("c1", (Text("fine"),), "f"),
                        ToolResult(
                            "c2",
                            (Text("1"), Media(kind="image", media_type="image/png", data=PNG)),
                            "sql",
                            extra={"openai_responses": {"custom": True}},
                        ),
                    ),
                ),
            ],
        ),
        (
            [
                {"type": "web_search_call", "id": "ws_1", "status": "completed"},
                {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
            ],
            [
                Message(
                    "assistant",
                    (
                        Opaque(
                            "openai_responses",
                            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
                        ),
                    ),
                ),
                Message("user", (Media(kind="document", file="file-1"),)),
            ],
        ),
    ],
)
def test_items_become_messages_in_their_order(
    items: list[dict[str, Any]], messages: list[Message]
) -> None:
    assert list(read(input=items).messages) == messages


@pytest.mark.parametrize("order", ["one call", "two calls"])
def test_the_output_of_a_call_follows_it_wherever_the_client_puts_it(order: str) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "r1"}
    note = {"role": "user", "content": "Hurry."}
    other = {**call, "call_id": "c2"}, {**output, "call_id": "c2", "output": "r2"}
    items = {
        "one call": [call, note, output],
        "two calls": [call, other[0], other[1], note, output],
    }[order]
    messages = read(input=[{"role": "user", "content": "Hi"}, *items]).messages
    results = [ToolResult("c1", (Text("r1"),), "f")]
    calls = [ToolCall("c1", "f", "{}")]
    if order == "two calls":
        results.append(ToolResult("c2", (Text("r2"),), "f"))
        calls.append(ToolCall("c2", "f", "{}"))
    assert messages == (
        user("Hi"),
        Message("assistant", tuple(calls)),
        Message("user", tuple(results)),
        user("Hurry."),
    )


def test_calls_with_the_same_id_have_their_outputs_in_order_and_none_is_lost() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    outputs = [{"type": "function_call_output", "call_id": "c", "output": text} for text in "123"]
    note = {"role": "user", "content": "On."}
    items = [note, call, outputs[0], note, call, note, outputs[1], outputs[2]]
    made = Message("assistant", (ToolCall("c", "f", "{}"),))
    results = [Message("user", (ToolResult("c", (Text(text),), "f"),)) for text in "123"]
    on = user("On.")
    expected = [on, made, results[0], on, made, results[1], on, results[2]]
    assert list(read(input=items).messages) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"max_output_tokens": 100}, {"max_tokens": 100}),
        ({"max_output_tokens": None}, {"max_tokens": None}),
        ({"reasoning": {"effort": "high", "summary": "auto"}},
         {"thinking": Thinking(effort="high", summary=True)}),
        ({"reasoning": {"effort": None}}, {"thinking": None}),
        ({"text": {"format": {"type": "json_object"}}}, {"output": Output()}),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"},
                              "strict": True}}},
         {"output": Output(schema={"type": "object"}, name="a", strict=True)}),
        ({"text": {"verbosity": "low"}},
         {"extra": {"openai_responses": {"text": {"verbosity": "low"}}}}),
        ({"parallel_tool_calls": False, "temperature": 0.5, "top_p": 0.9, "user": "u"},
         {"parallel_tools": False, "temperature": 0.5, "top_p": 0.9, "user": "u"}),
        ({"include": ["reasoning.encrypted_content"], "truncation": "disabled"}, {"extra": {}}),
        ({"include": ["message.output_text.logprobs"]},
         {"extra": {"openai_responses": {"include": ["message.output_text.logprobs"]}}}),
        ({"store": False}, {"extra": {}}),  # nothing is lost
        ({"store": True}, {"extra": {"openai_responses": {"store": True}}}),
    ],
)  # fmt: skip
def test_options_are_read(members: dict[str, Any], expected: dict[str, Any]) -> None:
    request = read(**members)
    assert {name: getattr(request, name) for name in expected} == expected


def test_tools_of_the_client_are_read_and_hosted_tools_are_kept_in_extra() -> None:
    search = {"type": "web_search", "search_context_size": "low"}
    function = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    request = read(tools=[function, CUSTOM, search])
    first, second = request.tools
    assert first == Tool(name="f", schema={"type": "object"}, strict=True)
    assert (second.name, second.extra) == ("sql", {"openai_responses": {"custom": CUSTOM}})
    assert request.extra == {"openai_responses": {"tools": [search]}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("required", ("f",))),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            ToolChoice("auto", ("f",)),
        ),
    ],
)
def test_tool_choices_are_read(choice: Any, expected: ToolChoice) -> None:
    tools = [{"type": "function", "name": "f", "parameters": None}]
    assert read(tools=tools, tool_choice=choice).tool_choice == expected


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": 7}]}, "tools[0].parameters"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
    ],
)
def test_an_invalid_member_is_named(members: dict[str, Any], param: str) -> None:
    with pytest.raises(APIError) as caught:
        read(**members)
    assert (caught.value.status, caught.value.param) == (400, param)


# ── requests out ─────────────────────────────────────────────────────────────


def test_a_conversation_is_written_as_items_in_its_order() -> None:
    thought = Reasoning("Hm.", {"openai_responses": {"encrypted_content": "gAAA=", "id": "rs_1"}})
    foreign = Reasoning("Hm.", {"anthropic": {"signature": "Eq"}})
    parts = (foreign, thought, Text("One."), ToolCall("c1", "f", '{"a":1}'), Text("Two."))
    body = written(
        Message("system", (Text("Be brief."),)),
        user("Hi."),
        Message("assistant", parts),
        Message("user", (ToolResult("c1", (Text("fine"),)),)),
        Message("system", (Text("Later."),)),
        tools=(Tool(name="f", schema={"type": "object"}),),
        thinking=Thinking(effort="low"),
    )
    said = {"type": "message", "role": "assistant"}
    assert body == {
        "model": "m",
        "store": False,
        "instructions": "Be brief.",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
        ],
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi."}],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "gAAA=",
            },
            {**said, "content": "One."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
            {**said, "content": "Two."},
            {"type": "function_call_output", "call_id": "c1", "output": "fine"},
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "Later."}],
            },
        ],
    }


def test_members_that_the_api_lacks_are_reported_and_its_minimum_limit_is_kept() -> None:
    request = Request(
        model="m", messages=(user("Hi."),), stop=("x",), seed=1, top_k=2, max_tokens=1
    )
    draft = DIALECT.encode_request(request)
    assert draft.path == "/responses"
    assert draft.body["max_output_tokens"] == 16
    assert set(draft.ignored) == {"stop", "seed", "top_k", "max_tokens"}


def test_a_decoded_and_encoded_request_is_the_same() -> None:
    body = {
        "model": "m",
        "store": False,
        "instructions": "Be brief.",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {
                        "type": "input_image",
                        "image_url": f"data:image/png;base64,{PNG}",
                        "detail": "low",
                    },
                ],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "gAAA=",
            },
            {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        ],
        "tools": [CUSTOM, {"type": "web_search"}],
        "tool_choice": {"type": "custom", "name": "sql"},
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "json_object"}},
        "max_output_tokens": 100,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "stream": True,
    }
    request = DIALECT.decode_request(OPERATION, json.dumps(body).encode())
    assert DIALECT.encode_request(request).body == body


# ── signatures of other vendors ──────────────────────────────────────────────

SIGNED = [
    Reasoning("Hm.", {"anthropic": {"signature": "Eq=="}}),
    Reasoning("", {"anthropic": {"redacted": "Ra=="}}),
    Reasoning("Hm.", {"gemini": {"signature": "Gs=="}}),
    Text("Said.", (), {"gemini": {"signature": "Gt=="}}),
    ToolCall("c:1", "f", "{}", {"gemini": {"signature": "Gc=="}}),
    ToolCall("c2", "f", "{}"),
    ToolCall("c3", "f", "{}", {"gemini": {"signature": "Gd=="}}),
]


@pytest.mark.parametrize("streamed", [False, True])
def test_signatures_of_other_vendors_are_restored_in_their_places(streamed: bool) -> None:
    request = Request(model="m", messages=(user("Hi."),))
    answer = Response(id="a", model="m", blocks=tuple(SIGNED))
    if streamed:
        encoder = DIALECT.encoder(request)
        data = b"".join([encoder.feed(event) for event in unfold(answer)])
        last = json.loads(cut(SSEFramer(), [data])[-1])["response"]
    else:
        last = json.loads(DIALECT.encode_response(answer, request))
    (message,) = read(input=last["output"]).messages
    assert list(message.parts) == SIGNED


SUMMARY, DETAIL = ("reasoning_summary_text", "In short."), ("reasoning_text", "At length.")


@pytest.mark.parametrize("texts", [(SUMMARY,), (DETAIL,), (SUMMARY, DETAIL)])
def test_an_items_summary_is_its_reasoning_whole_and_streamed(
    texts: tuple[tuple[str, str], ...],
) -> None:
    members = {"reasoning_summary_text": "summary", "reasoning_text": "content"}
    item = {"type": "reasoning", "id": "rs_1", "summary": []} | {
        members[kind]: [{"type": kind, "text": text}] for kind, text in texts
    }
    answer = {"id": "resp_1", "model": "m", "status": "completed", "output": [item]}
    decoder = DIALECT.decoder()
    events = [
        {"type": "response.created", "response": {**answer, "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "summary": []}},
        *(
            {"type": f"response.{kind}.delta", "output_index": 0, "delta": half}
            for kind, text in texts
            for half in (text[:3], text[3:])
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": answer},
    ]
    streamed = fold([e for event in events for e in decoder.feed(json.dumps(event).encode())])
    whole = DIALECT.decode_response(json.dumps(answer).encode())
    assert whole.blocks == streamed.blocks == (Reasoning(texts[0][1]),)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_image_by_address_is_a_link_in_the_text(streamed: bool) -> None:
    picture = Media(kind="image", url="https://a.example/b (1).png?c=%20")
    request = Request(model="m", messages=(user("Hi."),))
    answer = Response(id="a", model="m", blocks=(Text("See: "), picture, Text("Done.")))
    if streamed:
        encoder = DIALECT.encoder(request)
        data = b"".join([encoder.feed(event) for event in unfold(answer)])
        last = json.loads(cut(SSEFramer(), [data])[-1])["response"]
    else:
        last = json.loads(DIALECT.encode_response(answer, request))
    (item,) = last["output"]
    assert [part["text"] for part in item["content"]] == [
        "See: ",
        "![image](https://a.example/b%20%281%29.png?c=%20)\n",
        "Done.",
    ]


# ── read by OpenAI's own client ──────────────────────────────────────────────

event_type: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
REQUEST = Request(model="m", messages=(user("Hi."),), stream=True)


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_openais_client_knows_every_event(stream: Stream) -> None:
    events, error = decode(stream.language, cut(stream.framer, [stream.data]))
    encoder = DIALECT.encoder(REQUEST)
    data = b"".join([encoder.feed(event) for event in events])
    if error is not None:
        data += encoder.fail(error)
    numbers = []
    for piece in cut(SSEFramer(), [data]):
        event = json.loads(piece.replace(b"half \\ud83d", b"half"))
        if event["type"] == "response.failed":  # OpenAI sends codes that its client does not list
            event["response"]["error"]["code"] = "server_error"
        event_type.validate_python(event)
        numbers.append(json.loads(piece)["sequence_number"])
    assert numbers == list(range(len(numbers)))
    if error is None:
        whole = DIALECT.encode_response(fold(events), REQUEST)
        OpenAIResponse.model_validate_json(whole.replace(b"half \\ud83d", b"half"))


def test_the_final_response_of_a_stream_contains_what_its_events_sent() -> None:
    for stream in STREAMS:
        events, error = decode(stream.language, cut(stream.framer, [stream.data]))
        if error is not None:
            continue
        encoder = DIALECT.encoder(REQUEST)
        data = b"".join([encoder.feed(event) for event in events])
        frames = [json.loads(piece) for piece in cut(SSEFramer(), [data])]
        done = [f["item"] for f in frames if f["type"] == "response.output_item.done"]
        final = frames[-1]["response"]
        assert sorted(map(str, final["output"])) == sorted(map(str, done)), stream
        answer: Any = construct_type(type_=OpenAIResponse, value=final)
        said = "".join(f["delta"] for f in frames if f["type"] == "response.output_text.delta")
        assert answer.output_text == said


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("declared", "called"), [([], False), (["x_keyword_search"], True)])
def test_a_call_that_the_vendor_ran_itself_is_not_one_for_the_client(
    stream: bool, declared: list[str], called: bool
) -> None:
    # xAI's search of X is reported as calls of custom tools that were not declared.
    tools = [{"type": "x_search"}, *({"type": "custom", "name": name} for name in declared)]
    item = {**unusual.CUSTOM, "name": "x_keyword_search", "input": "{}"}
    end = unusual.end(item, unusual.MESSAGE, tools=tools)
    dialect = OpenAIResponses()
    if stream:
        events = (
            unusual.about("created", tools=tools),
            unusual.added({**item, "input": ""}),
            unusual.piece("custom_tool_call_input", "{}", item="ctc_1"),
            unusual.done(item),
            *unusual.at(1, *unusual.TEXT),
            end,
        )
        found, _ = decode(dialect, cut(dialect.framer("text/event-stream"), [sse(*events)]))
        response = fold(found)
    else:
        response = dialect.decode_response(json.dumps(end["response"]).encode())
    first, text = response.blocks
    assert text == Text(unusual.HI)
    assert isinstance(first, ToolCall if called else Opaque)
    assert response.stop is (StopReason.TOOLS if called else StopReason.END)
