"""Signed reasoning of one vendor is kept through the API of another, and not sent to a
third one.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects import Anthropic, Gemini, OpenAIResponses
from asgi_aiproxy.dialects._carriers import decode_carrier, encode_carrier, is_carrier
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import (
    Message,
    Opaque,
    Part,
    Reasoning,
    Request,
    Response,
    Text,
    ToolCall,
    unfold,
)
from tests.support.stream_fixtures import cut

MESSAGES = Operation("messages", "/v1/messages", chat=True)
RESPONSES = Operation("responses", "/responses", chat=True)
REQUESTED = Request(model="m", messages=(Message("user", (Text("Hi."),)),))

OPENAI = {"openai_responses": {"encrypted_content": "gAAA==", "id": "rs_1"}}
SIGNED: list[Part] = [
    Reasoning("Hm.", OPENAI),
    Reasoning("", {"openai_responses": {"encrypted_content": "gBBB=="}}),
    Reasoning("Well.", {"gemini": {"signature": "Gs=="}}),
    Text("Said.", (), {"gemini": {"signature": "Gt=="}}),
    Text("More."),
    ToolCall("c:1", "f", '{"a":1}', {"gemini": {"signature": "Gc=="}}),
    ToolCall("c2", "f", "{}"),
    Reasoning("Own.", {"anthropic": {"signature": "Eq=="}}),
    Reasoning("Unsigned."),
]


def answered(blocks: list[Any], *, streamed: bool) -> list[dict[str, Any]]:
    """The content that a client of the Messages API keeps of an answer."""
    answer = Response(id="a", model="m", blocks=tuple(blocks))
    if not streamed:
        content: list[dict[str, Any]] = json.loads(Anthropic().encode_response(answer, REQUESTED))[
            "content"
        ]
        return content
    encoder = Anthropic().encoder(REQUESTED)
    data = b"".join([encoder.feed(event) for event in unfold(answer)])
    kept: list[dict[str, Any]] = []
    pieces: dict[int, str] = {}
    for event in map(json.loads, cut(SSEFramer(), [data])):
        if event["type"] == "content_block_start":
            assert event["index"] == len(kept)
            kept.append(event["content_block"])
        if event["type"] == "content_block_delta":
            block, delta = kept[event["index"]], event["delta"]
            kind = delta.pop("type")
            ((member, text),) = delta.items()
            if kind == "input_json_delta":
                pieces[event["index"]] = pieces.get(event["index"], "") + text
            elif kind == "signature_delta":
                block[member] = text
            else:
                block[member] += text
    for at, text in pieces.items():
        kept[at]["input"] = json.loads(text)
    return kept


def returned(content: list[dict[str, Any]]) -> Message:
    """The assistant's turn in the next request."""
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": content}]
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": messages}).encode()
    return Anthropic().decode_request(MESSAGES, body).messages[1]


@pytest.mark.parametrize("streamed", [False, True])
def test_signatures_of_other_vendors_survive_a_client_of_the_messages_api(streamed: bool) -> None:
    assert list(returned(answered(SIGNED, streamed=streamed)).parts) == SIGNED


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("thought", [False, True])
def test_a_signature_without_text_is_sent_back_to_google_unchanged(
    streamed: bool, thought: bool
) -> None:
    part = {"text": "", **({"thought": True} if thought else {}), "thoughtSignature": "Gs=="}
    content = answered([Text("Said."), Opaque("gemini", part)], streamed=streamed)
    sent = Gemini().encode_request(
        msgspec.structs.replace(REQUESTED, messages=(*REQUESTED.messages, returned(content)))
    )
    assert sent.body["contents"][1]["parts"] == [{"text": "Said."}, part]


def test_a_carrier_is_sent_before_the_call_that_it_signs() -> None:
    """Clients drop thinking at the end of a turn."""
    kinds = [block["type"] for block in answered(SIGNED[5:6], streamed=True)]
    assert kinds == ["thinking", "tool_use"]


def test_a_carrier_without_its_call_is_dropped() -> None:
    assert returned(answered(SIGNED[5:7], streamed=False)[:1]).parts == ()


FOREIGN = [
    {"type": "thinking", "thinking": "", "signature": "gemini.call.c1:Gc=="},
    {"type": "thinking", "thinking": "Hm.", "signature": "openai.reasoning.rs_1:gA=="},
]
OWN = {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"}
SAID = {"type": "text", "text": 'Say "gemini.", "openai." and so on.'}


def natively(messages: list[dict[str, Any]]) -> Any:
    """The messages of a request that passes through to Anthropic."""
    fields = {"model": msgspec.Raw(b'"m"'), "messages": msgspec.Raw(json.dumps(messages).encode())}
    body = Anthropic().native_request(MESSAGES, "m", fields, stream=False).body
    return json.loads(msgspec.json.encode(body["messages"]))


def test_anthropic_gets_no_signature_of_another_vendor() -> None:
    turn = {"role": "assistant", "content": [FOREIGN[0], OWN, SAID, FOREIGN[1]]}
    alone = {"role": "assistant", "content": FOREIGN}
    user = {"role": "user", "content": "Hi."}
    assert natively([user, turn, alone, user]) == [user, {**turn, "content": [OWN, SAID]}, user]


def test_a_native_request_without_carriers_keeps_its_bytes() -> None:
    raw = b'[ {"role":"user","content":[{"type":"text","text":"gemini.x:y"}, 1.50]} ]'
    fields = {"messages": msgspec.Raw(raw)}
    body = Anthropic().native_request(MESSAGES, "m", fields, stream=False).body
    assert bytes(body["messages"]) == raw


def test_openai_gets_no_signature_of_another_vendor() -> None:
    own = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    foreign = {**own, "encrypted_content": "gemini.signature:Gs=="}
    kept = [own, {"type": "message", "role": "user", "content": "Hi."}]
    raw = json.dumps([foreign, *kept, {**own, "encrypted_content": "anthropic.redacted:R"}])
    fields = {"input": msgspec.Raw(raw.encode())}
    body = OpenAIResponses().native_request(RESPONSES, "m", fields, stream=False).body
    assert body["input"] == kept
    fields = {"input": msgspec.Raw(json.dumps('Say "gemini.".').encode())}
    body = OpenAIResponses().native_request(RESPONSES, "m", fields, stream=False).body
    assert body["input"] is fields["input"]


@pytest.mark.parametrize("value", ["", "EqoB==", "gAAAA", "other.signature:x", "a:b", None, 1])
def test_a_signature_that_is_not_a_carrier_is_kept(value: Any) -> None:
    assert not is_carrier("anthropic", value)


signatures = st.text(min_size=1)


@given(st.text(), signatures)
def test_encoded_carriers_are_decoded_unchanged(call_id: str, signature: str) -> None:
    extra = {"gemini": {"signature": signature}}
    written = encode_carrier("anthropic", ToolCall(call_id, "f", "", extra), extra)
    assert is_carrier("anthropic", written)
    assert not is_carrier("gemini", written)
    assert decode_carrier(written)[1] == extra
    (call,) = returned(
        [
            {"type": "thinking", "thinking": "", "signature": written},
            {"type": "tool_use", "id": call_id, "name": "f", "input": {}},
        ]
    ).parts
    assert call == ToolCall(call_id, "f", "{}", extra)
