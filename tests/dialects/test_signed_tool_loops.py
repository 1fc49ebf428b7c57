"""Signed reasoning in a tool loop of two turns: a client of any API, a provider of any API.

The client reads a response with signed reasoning and a call, whole or streamed, keeps it as its API
prescribes, and sends it back with the result of the call. The provider that signed must get each
signature unchanged, with the text it signs; no other provider may get any of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import (
    ANTHROPIC_MESSAGES,
    GEMINI_CONTENT,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    Dialect,
)
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.translate import StreamTranslator
from tests.support.stream_fixtures import cut

# ── what providers answer ────────────────────────────────────────────────────

CLAUDE = "EqoBCkgIARABGAIiQL8v" + "a+/" * 20 + "=="
REDACTED = "EmwKAhgBEgy3va3p" + "/z" * 10 + "=="
GOOGLE = "CpQBAdHtim9" + "b+/" * 20 + "=="
GOOGLE_CALL = "CiQB0e2Kb" + "c+/" * 20 + "=="
OPENAI = "gAAAAABo" + "x-_" * 20 + "=="
OPENAI_2 = "gAAAAABp" + "y-_" * 20 + "=="

ANTHROPIC_CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "First, the weather.", "signature": CLAUDE},
    {"type": "redacted_thinking", "data": REDACTED},
    {"type": "text", "text": "I will look."},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Kiel"}},
]
GEMINI_PARTS: list[dict[str, Any]] = [
    {"text": "First, the weather.", "thought": True},
    {"text": "I will look.", "thoughtSignature": GOOGLE},
    {
        "functionCall": {"name": "look", "args": {"city": "Kiel"}},
        "thoughtSignature": GOOGLE_CALL,
    },
]
RESPONSES_OUTPUT: list[dict[str, Any]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "First, the weather."}],
        "encrypted_content": OPENAI,
    },
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": OPENAI_2},
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "look",
        "arguments": '{"city":"Kiel"}',
        "status": "completed",
    },
]


def whole_anthropic() -> bytes:
    usage = {"input_tokens": 1, "output_tokens": 2}
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": ANTHROPIC_CONTENT,
            "stop_reason": "tool_use",
            "usage": usage,
        }
    ).encode()


def streamed_anthropic() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {}}}
    ]
    for at, block in enumerate(ANTHROPIC_CONTENT):
        opened, deltas = dict(block), list[dict[str, Any]]()
        match block["type"]:
            case "thinking":
                opened |= {"thinking": "", "signature": ""}
                deltas = [
                    {"type": "thinking_delta", "thinking": block["thinking"][:5]},
                    {"type": "thinking_delta", "thinking": block["thinking"][5:]},
                    {"type": "signature_delta", "signature": block["signature"]},
                ]
            case "text":
                opened["text"] = ""
                deltas = [{"type": "text_delta", "text": block["text"]}]
            case "tool_use":
                opened["input"] = {}
                text = json.dumps(block["input"])
                deltas = [{"type": "input_json_delta", "partial_json": text}]
        events.append({"type": "content_block_start", "index": at, "content_block": opened})
        events += [{"type": "content_block_delta", "index": at, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": at})
    events.append(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    return [*events, {"type": "message_stop"}]


def gemini_chunk(parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "gemini", "responseId": "r1"}


def whole_gemini() -> bytes:
    return json.dumps(gemini_chunk(GEMINI_PARTS, finishReason="STOP")).encode()


def streamed_gemini() -> list[dict[str, Any]]:
    return [*(gemini_chunk([part]) for part in GEMINI_PARTS), gemini_chunk([], finishReason="STOP")]


def responses_answer(status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    named = {"id": "resp_1", "object": "response", "model": "gpt", "status": status}
    return {**named, "output": output, "usage": usage}


def whole_responses() -> bytes:
    return json.dumps(responses_answer("completed", RESPONSES_OUTPUT)).encode()


def streamed_responses() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": responses_answer("in_progress", [])}
    ]
    for at, item in enumerate(RESPONSES_OUTPUT):
        where = {"output_index": at, "item_id": item["id"]}
        empty = {"encrypted_content": "", "summary": []} if item["type"] == "reasoning" else {}
        call = {"arguments": ""} if item["type"] == "function_call" else {}
        opened = {**item, **empty, **call}
        events.append({"type": "response.output_item.added", "output_index": at, "item": opened})
        for part in item.get("summary", ()):
            summary = {**where, "summary_index": 0}
            empty_part = {"type": "summary_text", "text": ""}
            events += [
                {"type": "response.reasoning_summary_part.added", **summary, "part": empty_part},
                {
                    "type": "response.reasoning_summary_text.delta",
                    **summary,
                    "delta": part["text"],
                },
                {
                    "type": "response.reasoning_summary_text.done",
                    **summary,
                    "text": part["text"],
                },
            ]
        if "arguments" in item:
            text = item["arguments"]
            delta = {"type": "response.function_call_arguments.delta", **where, "delta": text}
            done = {"type": "response.function_call_arguments.done", **where, "arguments": text}
            events += [delta, done]
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    final = responses_answer("completed", RESPONSES_OUTPUT)
    return [*events, {"type": "response.completed", "response": final}]


# ── what clients keep ────────────────────────────────────────────────────────


def kept_by_chat(body: bytes) -> list[Any]:
    return [json.loads(body)["choices"][0]["message"]]


def kept_by_chat_stream(events: list[dict[str, Any]]) -> list[Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
    for delta in (event["choices"][0]["delta"] for event in events if event["choices"]):
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        message.setdefault("reasoning_details", []).extend(delta.get("reasoning_details", ()))
        for piece in delta.get("tool_calls", ()):
            call = calls.setdefault(piece["index"], {"function": {"arguments": ""}})
            arguments = call["function"]["arguments"] + piece["function"]["arguments"]
            call |= {k: v for k, v in piece.items() if k not in ("index", "function")}
            call["function"] = {**call["function"], **piece["function"], "arguments": arguments}
    return [{**message, "tool_calls": list(calls.values())}]


def kept_by_messages(body: bytes) -> list[Any]:
    return [{"role": "assistant", "content": json.loads(body)["content"]}]


def kept_by_messages_stream(events: list[dict[str, Any]]) -> list[Any]:
    content: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            content.append(event["content_block"] | {"json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = content[event["index"]], event["delta"]
            match delta["type"]:
                case "thinking_delta":
                    block["thinking"] += delta["thinking"]
                case "text_delta":
                    block["text"] += delta["text"]
                case "signature_delta":
                    block["signature"] = delta["signature"]
                case "input_json_delta":
                    block["json"] += delta["partial_json"]
    for block in content:
        text = block.pop("json")
        if text:
            block["input"] = json.loads(text)
    return [{"role": "assistant", "content": content}]


def kept_by_responses(body: bytes) -> list[Any]:
    output: list[Any] = json.loads(body)["output"]
    return output


def kept_by_responses_stream(events: list[dict[str, Any]]) -> list[Any]:
    """Clients that store nothing collect the finished items."""
    return [e["item"] for e in events if e["type"] == "response.output_item.done"]


def kept_by_gemini(body: bytes) -> list[Any]:
    return [json.loads(body)["candidates"][0]["content"]]


def kept_by_gemini_stream(events: list[dict[str, Any]]) -> list[Any]:
    """Google's SDK keeps one content for each chunk."""
    contents = [event["candidates"][0]["content"] for event in events]
    return [content for content in contents if content["parts"]]


def without_thoughts(contents: list[Any]) -> list[Any]:
    """Many clients of that API drop thoughts, but keep the signatures of calls."""
    kept = [[p for p in content["parts"] if not p.get("thought")] for content in contents]
    return [{"role": "model", "parts": parts} for parts in kept if parts]


# ── what clients send back ───────────────────────────────────────────────────

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def sent_by_chat(kept: list[Any]) -> Any:
    (message,) = kept
    call_id = message["tool_calls"][0]["id"]
    result = {"role": "tool", "tool_call_id": call_id, "content": "Sunny."}
    function = {"name": "look", "parameters": SCHEMA}
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi."}, message, result],
        "tools": [{"type": "function", "function": function}],
        "reasoning_effort": "high",
    }


def sent_by_messages(kept: list[Any]) -> Any:
    call_id = next(b["id"] for b in kept[0]["content"] if b["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call_id, "content": "Sunny."}
    user = {"role": "user", "content": "Hi."}
    return {
        "model": "m",
        "max_tokens": 4096,
        "messages": [user, *kept, {"role": "user", "content": [result]}],
        "tools": [{"name": "look", "input_schema": SCHEMA}],
        "thinking": {"type": "enabled", "budget_tokens": 2048},
    }


def sent_by_responses(kept: list[Any]) -> Any:
    call_id = next(i["call_id"] for i in kept if i["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call_id, "output": "Sunny."}
    return {
        "model": "m",
        "input": [{"role": "user", "content": "Hi."}, *kept, result],
        "tools": [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}],
        "reasoning": {"effort": "high"},
        "store": False,
    }


def sent_by_gemini(kept: list[Any]) -> Any:
    parts = [part for content in kept for part in content["parts"]]
    call = next(part["functionCall"] for part in parts if "functionCall" in part)
    result = {"functionResponse": {"name": call["name"], "response": {"result": "Sunny."}}}
    if "id" in call:
        result["functionResponse"]["id"] = call["id"]
    user = {"role": "user", "parts": [{"text": "Hi."}]}
    return {
        "contents": [user, *kept, {"role": "user", "parts": [result]}],
        "tools": [{"functionDeclarations": [{"name": "look", "parametersJsonSchema": SCHEMA}]}],
        "generationConfig": {"thinkingConfig": {"thinkingLevel": "high"}},
    }


class Client(msgspec.Struct, frozen=True):
    face: Dialect
    operation: Operation
    keeps: Callable[[bytes], list[Any]]
    keeps_stream: Callable[[list[dict[str, Any]]], list[Any]]
    sends: Callable[[list[Any]], Any]


def operation(face: Dialect, path: str) -> Operation:
    found = face.match("POST", path)
    assert found is not None
    return found


CLIENTS = {
    "chat": Client(
        OPENAI_CHAT,
        operation(OPENAI_CHAT, "/v1/chat/completions"),
        kept_by_chat,
        kept_by_chat_stream,
        sent_by_chat,
    ),
    "messages": Client(
        ANTHROPIC_MESSAGES,
        operation(ANTHROPIC_MESSAGES, "/v1/messages"),
        kept_by_messages,
        kept_by_messages_stream,
        sent_by_messages,
    ),
    "responses": Client(
        OPENAI_RESPONSES,
        operation(OPENAI_RESPONSES, "/v1/responses"),
        kept_by_responses,
        kept_by_responses_stream,
        sent_by_responses,
    ),
    "gemini": Client(
        GEMINI_CONTENT,
        operation(GEMINI_CONTENT, "/v1beta/models/m:generateContent"),
        kept_by_gemini,
        kept_by_gemini_stream,
        sent_by_gemini,
    ),
    "gemini-without-thoughts": Client(
        GEMINI_CONTENT,
        operation(GEMINI_CONTENT, "/v1beta/models/m:generateContent"),
        lambda body: without_thoughts(kept_by_gemini(body)),
        lambda events: without_thoughts(kept_by_gemini_stream(events)),
        sent_by_gemini,
    ),
}


class Vendor(msgspec.Struct, frozen=True):
    dialect: Dialect
    model: str
    whole: Callable[[], bytes]
    streamed: Callable[[], list[dict[str, Any]]]
    signatures: tuple[str, ...]


VENDORS = {
    "anthropic": Vendor(
        ANTHROPIC_MESSAGES,
        "claude-sonnet-4-5",
        whole_anthropic,
        streamed_anthropic,
        (CLAUDE, REDACTED),
    ),
    "gemini": Vendor(
        GEMINI_CONTENT, "gemini-3-pro", whole_gemini, streamed_gemini, (GOOGLE, GOOGLE_CALL)
    ),
    "openai": Vendor(
        OPENAI_RESPONSES, "gpt-5", whole_responses, streamed_responses, (OPENAI, OPENAI_2)
    ),
}
EVERY = [signature for vendor in VENDORS.values() for signature in vendor.signatures]


def kept(client: Client, vendor: Vendor, *, streamed: bool) -> list[Any]:
    """What the client keeps of the vendor's response."""
    body = json.dumps(client.sends(PLAIN[client.face.name])).encode()
    request = client.face.decode_request(client.operation, body)
    native = client.face is vendor.dialect
    if not streamed:
        whole = vendor.whole()
        if not native:
            response = vendor.dialect.decode_response(whole)
            whole = client.face.encode_response(response, request)
        return client.keeps(whole)
    events = vendor.streamed()
    if not native:
        sent = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        translator = StreamTranslator(
            SSEFramer(), vendor.dialect.decoder(), client.face.encoder(request)
        )
        out = translator.feed(sent) + translator.close()
        pieces = cut(SSEFramer(), [out])
        events = [json.loads(piece) for piece in pieces if piece != b"[DONE]"]
    return client.keeps_stream(events)


def forwarded(client: Client, vendor: Vendor, turn: list[Any]) -> Any:
    """The request that the vendor gets for the second turn."""
    body = json.dumps(client.sends(turn)).encode()
    if client.face is vendor.dialect:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        draft = client.face.native_request(client.operation, vendor.model, fields, stream=False)
    else:
        request = client.face.decode_request(client.operation, body)
        request = msgspec.structs.replace(request, model=vendor.model)
        draft = vendor.dialect.encode_request(request)
    return json.loads(msgspec.json.encode(draft.body))


PLAIN: dict[str, list[Any]] = {
    "openai_chat": [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ],
        }
    ],
    "anthropic": [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c", "name": "look", "input": {}}],
        }
    ],
    "openai_responses": [
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    ],
    "gemini": [{"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]}],
}


def check_anthropic(body: Any) -> None:
    (turn,) = (message for message in body["messages"] if message["role"] == "assistant")
    signed = [b for b in turn["content"] if b["type"] in ("thinking", "redacted_thinking")]
    assert signed == ANTHROPIC_CONTENT[:2]
    kinds = [block["type"] for block in turn["content"]]
    assert kinds == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert body["thinking"]["type"] != "disabled"


def check_gemini(body: Any) -> None:
    parts = [p for c in body["contents"] if c["role"] == "model" for p in c["parts"]]
    signed = [part for part in parts if "thoughtSignature" in part]
    assert [(part.get("text"), part["thoughtSignature"]) for part in signed] == [
        ("I will look.", GOOGLE),
        (None, GOOGLE_CALL),
    ]
    assert signed[1]["functionCall"]["args"] == {"city": "Kiel"}


def check_openai(body: Any) -> None:
    items = [item for item in body["input"] if item.get("type") == "reasoning"]
    assert [(item["id"], item["encrypted_content"]) for item in items] == [
        ("rs_1", OPENAI),
        ("rs_2", OPENAI_2),
    ]
    texts = [[part["text"] for part in item["summary"]] for item in items]
    assert texts == [["First, the weather."], []]
    kinds = [item.get("type", "message") for item in body["input"]]
    assert kinds == [
        "message",
        "reasoning",
        "reasoning",
        "function_call",
        "function_call_output",
    ]


CHECKS = {"anthropic": check_anthropic, "gemini": check_gemini, "openai": check_openai}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("vendor", list(VENDORS))
@pytest.mark.parametrize("face", list(CLIENTS))
def test_signatures_come_back_to_their_vendor_to_the_byte(
    face: str, vendor: str, streamed: bool
) -> None:
    client, signer = CLIENTS[face], VENDORS[vendor]
    turn = kept(client, signer, streamed=streamed)
    CHECKS[vendor](forwarded(client, signer, turn))


def encodings(signature: str) -> set[str]:
    """How a signature may stand in a body: plain, or in base64 at any offset."""
    found = {signature}
    for shift in range(3):
        encoded = base64.b64encode(b"-" * shift + signature.encode()).decode()
        found.add(encoded[4:-4])
    return found


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("other", list(VENDORS))
@pytest.mark.parametrize("vendor", list(VENDORS))
@pytest.mark.parametrize("face", list(CLIENTS))
def test_no_other_vendor_gets_a_signature(
    face: str, vendor: str, other: str, streamed: bool
) -> None:
    if vendor == other:
        return
    client, signer = CLIENTS[face], VENDORS[vendor]
    turn = kept(client, signer, streamed=streamed)
    native = client.face is signer.dialect
    text = json.dumps(forwarded(client, VENDORS[other], turn))
    for signature in signer.signatures:
        assert not any(form in text for form in encodings(signature)), (native, signature)
    assert "look" in text
    assert "Sunny." in text


def test_thoughts_that_a_client_drops_come_back_where_they_were() -> None:
    thinking = [
        {"type": "thinking", "thinking": f"Thought {n}.", "signature": CLAUDE + str(n)}
        for n in range(3)
    ]
    texts = [{"type": "text", "text": f"Text {n}."} for n in range(2)]
    calls = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": "look", "input": {"n": n}}
        for n in range(3)
    ]
    said: list[Any] = [texts[0], thinking[0], texts[1], thinking[1], *calls[:2]]
    said += [thinking[2], calls[2]]
    answer = {**json.loads(whole_anthropic()), "content": said}
    client = CLIENTS["gemini-without-thoughts"]
    body = json.dumps(client.sends(PLAIN["gemini"])).encode()
    request = client.face.decode_request(client.operation, body)
    response = ANTHROPIC_MESSAGES.decode_response(json.dumps(answer).encode())
    (turn,) = client.keeps(client.face.encode_response(response, request))
    parts = turn["parts"]
    assert ["thoughtSignature" in part for part in parts] == [False, False, True, False, True]
    joined = {"text": parts[0]["text"] + parts[1]["text"]}
    for kept_parts in (parts, [joined, *parts[2:]]):
        sent = forwarded(client, VENDORS["anthropic"], [{"role": "model", "parts": kept_parts}])
        assert sent["messages"][1]["content"] == said


@pytest.mark.parametrize(
    "value", ["", "[]", "{}", "[[1]]", '[[0,"a","b"]]', '[[-5,"","gemini.x:y"]]']
)
def test_a_damaged_signature_of_a_call_is_left_out(value: str) -> None:
    client = CLIENTS["gemini"]
    signature = base64.b64encode(b"anthropic.before:" + value.encode()).decode()
    call = {"functionCall": {"name": "look", "args": {}}, "thoughtSignature": signature}
    turn = [{"role": "model", "parts": [{"text": "I will look."}, call]}]
    for vendor in VENDORS.values():
        text = json.dumps(forwarded(client, vendor, turn))
        assert signature not in text
        assert "before" not in text
