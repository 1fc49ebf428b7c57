"""OpenAI responses that pass through, unchanged or normalized."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.dialects.openai_chat import normalize
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
    OpenAINativeStream,
    openai_usage,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Text,
    ToolCall,
    Usage,
)
from tests.dialects.openai_chat.samples import (
    completion,
)
from tests.support import chat_stream_reader as strict
from tests.support.dialect_requests import HI, openai


@pytest.mark.parametrize(
    ("message", "finish", "fixed", "word"),
    [
        ({"content": "Hi."}, "eos", {"content": "Hi."}, "stop"),
        ({"content": "Hi.", "role": "model"}, "", {"content": "Hi."}, "stop"),
        (
            {"content": [{"type": "thinking", "thinking": "Hm."}, {"text": "4"}, 7]},
            "stop",
            {"content": "4", "reasoning_content": "Hm."},
            "stop",
        ),
        ({"content": 7}, "stop", {"content": ""}, "stop"),
        (
            {"content": "4", "function_call": {"name": "", "arguments": ""}},
            "stop",
            {"content": "4"},
            "stop",
        ),
        ({"content": "4", "tool_calls": []}, "stop", {"content": "4"}, "stop"),
        (
            {
                "content": None,
                "tool_calls": [
                    {"function": {"name": "f", "arguments": {"a": 1}}},
                    {"id": "", "type": "", "function": {"name": "g"}},
                ],
            },
            "stop",
            {
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_0",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":1}'},
                    },
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "g", "arguments": "{}"},
                    },
                ],
            },
            "tool_calls",
        ),
        (
            {"content": None, "tool_calls": [{"id": "c", "custom": {"name": "sh", "input": "ls"}}]},
            "tool_calls",
            {
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
                ],
            },
            "tool_calls",
        ),
    ],
)
def test_a_whole_answer_is_normalized(
    message: dict[str, Any], finish: Any, fixed: dict[str, Any], word: str
) -> None:
    echo = NormalizingNativeStream(usage_wanted=True, new_id="chatcmpl-new")
    body = {"choices": [{"message": message, "finish_reason": finish}, {"delta": {}}], "extra": 1}
    reported = json.loads(echo.whole(json.dumps(body).encode()))
    assert reported["choices"][0] == {
        "message": {"role": "assistant", **fixed},
        "finish_reason": word,
        "index": 0,
    }
    assert reported["choices"][1] == {"delta": {}}
    assert (reported["id"], reported["object"], reported["model"], reported["extra"]) == (
        "chatcmpl-new",
        "chat.completion",
        "",
        1,
    )
    assert type(reported["created"]) is int


def test_a_valid_response_passes_unchanged() -> None:
    body = completion(
        {"content": "Hi."}, object="chat.completion", created=1, usage={"prompt_tokens": 1}
    ).replace(b": ", b":  ")
    echo = NormalizingNativeStream(usage_wanted=True, new_id="x")
    assert echo.whole(body) == body
    assert (echo.model, echo.usage) == ("gpt-test", Usage(input=1))

    exact = OpenAINativeStream(usage_wanted=True)
    assert exact.whole(body) == body
    assert (exact.model, exact.usage) == ("gpt-test", Usage(input=1))


def whole_answer(word: str | None, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": word}
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [choice]}).encode()


EMPTY_CUSTOM = {"input": "", "name": ""}


CALLS: list[tuple[dict[str, Any], str, str, str]] = [
    # the call unchanged, its kind, name and arguments
    ({"function": {"name": "f", "arguments": "{}"}, "custom": EMPTY_CUSTOM}, "function", "f", "{}"),
    ({"function": {"name": "f", "arguments": "{}"}, "custom": {}}, "function", "f", "{}"),
    ({"function": {"name": "f", "arguments": ""}, "custom": EMPTY_CUSTOM}, "function", "f", ""),
    ({"custom": {"name": "sh", "input": "ls"}}, "custom", "sh", "ls"),
    (
        {"custom": {"name": "sh", "input": "ls"}, "function": {"name": "", "arguments": ""}},
        "custom",
        "sh",
        "ls",
    ),
]


@pytest.mark.parametrize(("call", "kind", "name", "arguments"), CALLS)
def test_an_empty_second_member_does_not_change_the_type_of_a_call(
    call: dict[str, Any], kind: str, name: str, arguments: str
) -> None:
    body = whole_answer("tool_calls", content=None, tool_calls=[{"id": "c", **call}])
    (made,) = OPENAI_CHAT.decode_response(body).blocks
    assert made == ToolCall("c", name, arguments or "{}")
    normalized = json.loads(NormalizingNativeStream(usage_wanted=True, new_id="x").whole(body))
    (reported,) = normalized["choices"][0]["message"]["tool_calls"]
    field = "input" if kind == "custom" else "arguments"
    part = {"name": name, field: arguments}
    assert reported == {"id": "c", "type": kind, kind: part}
    # and when the client sends it back
    (*_, replayed) = openai(
        [*HI, {"role": "assistant", "tool_calls": [{"id": "c", **call}]}]
    ).messages
    (part_back,) = replayed.parts
    assert isinstance(part_back, ToolCall)
    as_function = arguments if kind == "function" else '{"input":"ls"}'
    assert (part_back.name, part_back.arguments) == (name, as_function)


@pytest.mark.parametrize(
    "word",
    [
        "function_call_filter: MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "other",
        "abort",
        "insufficient_system_resource",
    ],
)
@pytest.mark.parametrize(
    "message", [{"content": ""}, {"content": None, "reasoning_content": "Hm."}]
)
def test_a_response_without_content_that_failed_is_an_error(
    word: str, message: dict[str, Any]
) -> None:
    body = whole_answer(word, **message)
    for read in (
        OPENAI_CHAT.decode_response,
        NormalizingNativeStream(usage_wanted=True, new_id="x").whole,
    ):
        with pytest.raises(APIError, match=f"failed with {word}") as caught:
            read(body)
        assert caught.value.kind is ErrorKind.UPSTREAM
    with_content = whole_answer(word, content="Hi.")
    assert OPENAI_CHAT.decode_response(with_content).blocks == (Text("Hi."),)
    assert b"Hi." in NormalizingNativeStream(usage_wanted=True, new_id="x").whole(with_content)


@pytest.mark.parametrize(
    "echo",
    [NormalizingNativeStream(usage_wanted=True, new_id="x"), OpenAINativeStream(usage_wanted=True)],
)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", ErrorKind.UPSTREAM),
        (b"[]", ErrorKind.UPSTREAM),
        (b'{"error":{"message":"m","code":429}}', ErrorKind.LIMITED),
        (b'{"error":"m"}', ErrorKind.UPSTREAM),
    ],
)
def test_an_invalid_body_that_passes_through_is_an_error(
    echo: Any, body: bytes, kind: ErrorKind
) -> None:
    with pytest.raises(APIError) as caught:
        echo.whole(body)
    assert caught.value.kind is kind


def test_a_body_of_any_kind_may_have_usage() -> None:
    assert openai_usage(b'{"model":"m","usage":{"prompt_tokens":3}}') == ("m", Usage(input=3))
    assert openai_usage(b'{"data":[]}') == ("", None)
    for body in (b"", b"RIFF", b"[]", b'{"usage":7}'):
        assert openai_usage(body) == ("", None)


def test_a_native_stream_normalizes_unless_the_provider_is_strict() -> None:
    assert isinstance(
        OPENAI_CHAT.native_stream(usage_wanted=True, strict_format=True), OpenAINativeStream
    )
    assert isinstance(
        OPENAI_CHAT.native_stream(usage_wanted=True, strict_format=False), NormalizingNativeStream
    )


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "a", "stop", 1.5]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2)
    ),
    max_leaves=3,
)


def shaped(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object that may have these members; each may also be invalid."""
    return st.fixed_dictionaries({}, optional={n: v | JUNK for n, v in members.items()})


TEXTS = st.sampled_from(["", "a", '{"a"', ":1}"])


FUNCTIONS = shaped(name=TEXTS, arguments=TEXTS | st.just({"a": 1}))


CALL_FRAGMENTS = shaped(
    index=st.integers(0, 1),
    id=TEXTS,
    type=TEXTS,
    function=FUNCTIONS,
    custom=shaped(name=TEXTS, input=TEXTS),
)


PARTS = shaped(type=st.sampled_from(["text", "thinking"]), text=TEXTS, thinking=TEXTS)


DELTAS = shaped(
    role=st.sampled_from(["assistant", "model"]),
    content=TEXTS | st.lists(PARTS, max_size=2),
    refusal=TEXTS,
    reasoning=TEXTS,
    tool_calls=st.lists(CALL_FRAGMENTS, max_size=2),
    function_call=FUNCTIONS,
)


CHOICES = shaped(
    index=st.integers(0, 1),
    delta=DELTAS,
    message=DELTAS,
    finish_reason=st.sampled_from(["stop", "eos", "tool_calls", ""]),
)


CHUNKS = shaped(
    id=TEXTS,
    object=TEXTS,
    created=st.integers(0, 9),
    model=TEXTS,
    choices=st.lists(CHOICES, max_size=2),
    usage=shaped(prompt_tokens=st.integers(0, 9)),
    x_groq=shaped(usage=shaped(prompt_tokens=st.integers(0, 9))),
)


@given(st.lists(CHUNKS, max_size=5))
@settings(max_examples=600, deadline=None)
def test_any_similar_object_is_normalized_to_a_valid_chunk(sent: list[dict[str, Any]]) -> None:
    chunks = normalize.ChunkNormalizer("chatcmpl-new")
    reported = [out for chunk in sent if (out := chunks.chunk(chunk)) is not None]
    reported += chunks.end(usage_wanted=True)
    if chunks.head is None:
        return  # nothing was said
    strict.read(reported)
    for index in {c["index"] for chunk in reported for c in chunk["choices"]}:
        ends = [
            c["finish_reason"]
            for chunk in reported
            for c in chunk["choices"]
            if c["index"] == index
        ]
        assert [end for end in ends if end] == [end for end in [chunks.finish(index)] if end]
