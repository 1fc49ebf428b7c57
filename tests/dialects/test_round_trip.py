"""Google's answers through OpenAI's format and back: each part in its place with its signature."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from asgi_aiproxy.dialects import GEMINI_CONTENT, OPENAI_CHAT
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import Request
from asgi_aiproxy.translate import StreamTranslator
from tests.support import chat_stream_reader as strict
from tests.support.dialect_requests import openai, written

PNG = "iVBORw0KGgo="
Part = dict[str, Any]


def text(words: str, **more: Any) -> Part:
    return {"text": words, **more}


def call(number: int, **more: Any) -> Part:
    return {"functionCall": {"id": f"id{number}", "name": f"f{number}", "args": {"n": 1}}, **more}


def image(**more: Any) -> Part:
    return {"inlineData": {"mimeType": "image/png", "data": PNG}, **more}


def signed(mark: str) -> Part:
    return {"thoughtSignature": mark}


THOUGHT = {"thought": True}

# As Google documents them, and stranger ones.
ANSWERS: list[list[Part]] = [
    [text("Hi.")],
    [text("Hi.", **signed("A"))],
    [text("Hi."), text("", **signed("A"))],
    [text("One. ", **signed("A")), text("Two.", **signed("B"))],
    [text("One. ", **signed("A")), text("Two.")],
    [text("One. "), text("Two.", **signed("A"))],
    [call(1, **signed("A")), call(2)],
    [call(1, **signed("A")), text("", **signed("B"))],
    [call(1), text("Called.", **signed("A"))],
    [text("First. "), call(1, **signed("A")), text("Then. "), call(2, **signed("B"))],
    [text("", **signed("A")), call(1)],
    [text("", **signed("A"))],
    [text("Hm.", **THOUGHT, **signed("A")), text("Hi.", **signed("B")), call(1, **signed("C"))],
    [text("", **THOUGHT, **signed("A")), text("Hi.")],
    [text("Hi."), text("Hm.", **THOUGHT, **signed("A")), call(1)],
    [text("Look: ", **signed("A")), image(**signed("B")), text("Nice.", **signed("C"))],
    [image(**signed("A")), image(**signed("B"))],
    [image(), call(1, **signed("A"))],
]

SIGNATURES = st.just({}) | st.sampled_from(["A", "B", "C"]).map(signed)
WORDS = st.sampled_from(["Hi. ", "\U0001f680 é", "<b>\n", '"{}'])


@st.composite
def answers(draw: st.DrawFn) -> list[Part]:
    """Parts of any kind in any order."""
    parts: list[Part] = []
    for number in range(draw(st.integers(1, 6))):
        proof = draw(SIGNATURES)
        made: list[Part] = [text(draw(WORDS), **proof), call(number, **proof), image(**proof)]
        if proof:
            made += [text("", **proof), text(draw(WORDS), **THOUGHT, **proof)]
            made += [text("", **THOUGHT, **proof)]
        else:
            made.append(text(draw(WORDS), **THOUGHT))
        parts.append(draw(st.sampled_from(made)))
    return parts


def expected(parts: list[Part]) -> list[Part]:
    """What is sent back: unsigned reasoning is not, and adjacent unsigned texts are one."""
    out: list[Part] = []
    apart = True
    for part in parts:
        plain = list(part) == ["text"]
        if part.get("thought") and "thoughtSignature" not in part:
            apart = True
            continue
        if plain and out and not apart:
            out[-1] = text(out[-1]["text"] + part["text"])
        else:
            out.append(dict(part))
        apart = not plain
    return merged(out)


def merged(parts: list[Part]) -> list[Part]:
    """Reasoning that was dropped was between texts that are one now."""
    out: list[Part] = []
    for part in parts:
        if out and list(part) == list(out[-1]) == ["text"]:
            out[-1] = text(out[-1]["text"] + part["text"])
        else:
            out.append(part)
    return out


def body(parts: list[Part], finish: str | None = "STOP") -> bytes:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    end = {"finishReason": finish} if finish else {}
    return json.dumps({"candidates": [candidate | end], "modelVersion": "gemini-x"}).encode()


def whole(parts: list[Part]) -> Part:
    """The message that a client gets for a whole response."""
    response = GEMINI_CONTENT.decode_response(body(parts))
    request = Request(model="m", messages=())
    answer = json.loads(OPENAI_CHAT.encode_response(response, request))
    ChatCompletion.model_validate(answer)
    message: Part = answer["choices"][0]["message"]
    return message


def streamed(parts: list[Part]) -> Part:
    """The message that OpenAI's SDK collects from a stream, one part per chunk."""
    request = Request(model="m", messages=(), stream=True)
    translator = StreamTranslator(
        SSEFramer(), GEMINI_CONTENT.decoder(), OPENAI_CHAT.encoder(request)
    )
    sent = [body([part], None) for part in parts] + [body([])]
    out = b"".join(translator.feed(b"data: " + data + b"\n\n") for data in sent)
    chunks, done = strict.chunks_in(out + translator.close())
    assert done
    strict.read(chunks)
    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    message = state.get_final_completion().choices[0].message
    dumped: Part = message.model_dump(exclude_none=True, exclude={"parsed"})
    return dumped


def back(message: Part, model: str = "gemini-2.5-pro") -> list[Part]:
    """What Google gets when a client sends that message back."""
    history = [{"role": "user", "content": "Hi"}, message]
    request = openai(json.loads(json.dumps(history)))
    contents = written("gemini", request, model).body["contents"]
    assert [content["role"] for content in contents] in (["user", "model"], ["user"])
    found: list[Part] = contents[-1]["parts"] if len(contents) > 1 else []
    return merged([dict(part) for part in found])


@pytest.mark.parametrize("through", [whole, streamed])
@pytest.mark.parametrize("parts", ANSWERS, ids=json.dumps)
def test_google_gets_its_answer_back_unchanged(parts: list[Part], through: Any) -> None:
    assert back(through(parts)) == expected(parts)


@pytest.mark.parametrize("through", [whole, streamed])
def test_a_part_with_only_a_signature_is_sent_back_without_text(through: Any) -> None:
    message = through([call(1), signed("A")])
    assert back(message) == [call(1), text("", **signed("A"))]


@given(parts=answers())
@settings(max_examples=300, deadline=None)
@example(parts=[text("a", **signed("A")), text("b", **THOUGHT), text("c")])
def test_google_gets_any_answer_back_unchanged(parts: list[Part]) -> None:
    assert back(whole(parts)) == expected(parts)
    assert back(streamed(parts)) == expected(parts)


@pytest.mark.parametrize("model", ["gemini-3-pro-preview", "gemini-flash-latest"])
def test_a_turn_signed_by_google_needs_no_substitute_signature(model: str) -> None:
    for parts in ANSWERS:
        if any("thoughtSignature" in part for part in parts):
            assert back(whole(parts), model) == expected(parts)


def test_a_message_changed_by_the_client_is_sent_as_changed() -> None:
    parts = [text("First. "), call(1, **signed("A")), text("Then. "), call(2, **signed("B"))]
    message = whole(parts)
    message["content"] = "Else."
    assert back(message) == [text("Else."), call(1, **signed("A")), call(2, **signed("B"))]
    message = whole(parts)
    del message["tool_calls"][1]
    assert back(message) == [text("First. Then. "), call(1, **signed("A"))]


@pytest.mark.parametrize(
    "order", ["r", "s3", "t", "c c", "i", "x", "t3 ", "t-1", "", "t" + 99 * "9"]
)
def test_a_missing_block_order_changes_nothing(order: str) -> None:
    reported = {"type": "reasoning.encrypted", "format": "aiproxy-order-v1", "data": order}
    message = {"role": "assistant", "content": "Hi.", "reasoning_details": [reported]}
    assert back(message) == [text("Hi.")]
