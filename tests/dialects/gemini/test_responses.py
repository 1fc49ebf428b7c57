"""Google's whole responses, decoded and encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import GEMINI_CONTENT, Gemini
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Citation,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
    fold,
)
from asgi_aiproxy.translate import NativeStreamTranslator
from tests.dialects.gemini.samples import (
    PNG,
)


def answer(parts: list[Any] | None, **members: Any) -> bytes:
    content = {} if parts is None else {"content": {"parts": parts, "role": "model"}}
    candidate = {**content, "finishReason": "STOP", **members.pop("candidate", {})}
    body = {
        "candidates": [candidate],
        "modelVersion": "gemini-test",
        "responseId": "resp_1",
        **members,
    }
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("parts", "blocks", "stop"),
    [
        ([{"text": "Hi."}], (Text("Hi."),), StopReason.END),
        (None, (), StopReason.END),
        ([], (), StopReason.END),
        (
            [
                {"text": "Hm.", "thought": True},
                {"text": "4", "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"id": "b", "name": "g"}},
            ],
            (
                Reasoning("Hm."),
                Text("4", extra={"gemini": {"signature": "c2ln"}}),
                ToolCall("new_1", "f", '{"x":1}', {"gemini": {"signature": "c2ln"}}),
                ToolCall("b", "g", "{}"),
            ),
            StopReason.TOOLS,
        ),
        (
            [
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"inlineData": {"mimeType": "text/csv", "data": "YSxi"}},
                {"executableCode": {"code": "x"}},
                {"newPart": 1},
            ],
            (
                Media(kind="image", media_type="image/png", data=PNG),
                Media(kind="document", media_type="text/csv", data="YSxi"),
                Opaque("gemini", {"executableCode": {"code": "x"}}),
            ),
            StopReason.END,
        ),
    ],
)
def test_a_whole_response_is_decoded(
    parts: list[Any] | None, blocks: tuple[Any, ...], stop: StopReason
) -> None:
    dialect = Gemini(new_id=lambda: "new_1")
    assert dialect.decode_response(answer(parts)) == Response(
        id="resp_1", model="gemini-test", blocks=blocks, stop=stop, word="STOP"
    )


@pytest.mark.parametrize(
    ("candidate", "stop", "refusal"),
    [
        ({"finishReason": "MAX_TOKENS"}, StopReason.LENGTH, ""),
        ({"finishReason": "SAFETY", "finishMessage": "Unsafe."}, StopReason.FILTER, "Unsafe."),
        ({"finishReason": "PROHIBITED_CONTENT"}, StopReason.FILTER, ""),
        ({"finishReason": "STOP", "finishMessage": "Called."}, StopReason.END, ""),
    ],
)
def test_stop_reasons_are_decoded(
    candidate: dict[str, Any], stop: StopReason, refusal: str
) -> None:
    found = GEMINI_CONTENT.decode_response(answer([], candidate=candidate))
    assert (found.stop, found.refusal, found.word) == (stop, refusal, candidate["finishReason"])


FAILURES = [
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "OTHER",
    "NO_IMAGE",
    "A_NEW_ONE",
]


NOTHING: list[list[dict[str, Any]]] = [
    [],
    [{"text": "Let me see.", "thought": True}],
    [{"text": "", "thoughtSignature": "s"}],
]


@pytest.mark.parametrize("word", FAILURES)
@pytest.mark.parametrize("parts", NOTHING)
@pytest.mark.parametrize("how", ["translated", "passed on", "streamed", "passed on in a stream"])
def test_a_response_without_content_that_failed_is_an_error(
    word: str, parts: list[Any], how: str
) -> None:
    body = answer(parts, candidate={"finishReason": word, "finishMessage": "print(f("})
    with pytest.raises(APIError, match=rf"failed with {word} \(print\(f\(\)") as caught:
        read_in(how, body)
    assert caught.value.kind is ErrorKind.UPSTREAM


@pytest.mark.parametrize("word", FAILURES)
@pytest.mark.parametrize(
    "part",
    [
        {"text": "Hi."},
        {"functionCall": {"name": "f", "args": {}}},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
    ],
)
@pytest.mark.parametrize("how", ["translated", "passed on", "streamed", "passed on in a stream"])
def test_content_is_kept_whatever_the_finish_reason(word: str, part: Any, how: str) -> None:
    candidate = {"finishReason": word, "finishMessage": "print(f("}
    reported = read_in(how, answer([part], candidate=candidate))
    assert reported is None or (reported.stop, reported.word, reported.refusal) == (
        StopReason.OTHER,
        word,
        "",
    )


@pytest.mark.parametrize("word", ["STOP", "MAX_TOKENS", "SAFETY", "PROHIBITED_CONTENT"])
@pytest.mark.parametrize("how", ["translated", "passed on", "streamed", "passed on in a stream"])
def test_an_empty_response_that_stopped_or_was_filtered_is_not_an_error(
    word: str, how: str
) -> None:
    read_in(how, answer([], candidate={"finishReason": word}))


def read_in(how: str, body: bytes) -> Response | None:
    """A whole response, or the same in two chunks: its content, then its end."""
    whole = json.loads(body)
    (candidate,) = whole["candidates"]
    first = {**whole, "candidates": [{"content": candidate["content"], "index": 0}]}
    last = {**whole, "candidates": [{**candidate, "content": {"role": "model"}}]}
    chunks = [json.dumps(chunk).encode() for chunk in (first, last)]
    match how:
        case "translated":
            return GEMINI_CONTENT.decode_response(body)
        case "streamed":
            decoder = GEMINI_CONTENT.decoder()
            events = [event for chunk in chunks for event in decoder.feed(chunk)]
            return fold([*events, *decoder.close()])
        case "passed on":
            assert (
                GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True).whole(body)
                == body
            )
        case _:
            verbatim = NativeStreamTranslator(
                GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True)
            )
            sent = b"".join(b"data: " + chunk + b"\n\n" for chunk in chunks)
            assert verbatim.feed(sent) + verbatim.close() == sent
    return None


def test_content_in_unparsed_frames_counts_as_content() -> None:
    echo = GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True)
    verbatim = NativeStreamTranslator(echo)
    thought = answer([{"text": "Hm.", "thought": True}], candidate={})
    text = answer([{"text": "Hi."}], candidate={})
    end = answer([], candidate={"finishReason": "OTHER"})
    frames = [b"data: " + chunk + b"\n\n" for chunk in (thought, thought, text, end)]
    assert b"".join([verbatim.feed(frame) for frame in frames]) == b"".join(frames)
    assert verbatim.close() == b""


def unfinished(text: str, after: str = "") -> bytes:
    """A frame with a text, and further members of the chunk."""
    content = json.dumps({"content": {"parts": [{"text": text}], "role": "model"}})
    return f'data: {{"candidates":[{content}]{after}}}\n\n'.encode()


@pytest.mark.parametrize("colon", [":", " : "], ids=["usual", "spaced"])
def test_a_text_that_is_the_name_of_the_usage_hides_no_usage(colon: str) -> None:
    verbatim = NativeStreamTranslator(
        GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True)
    )
    for count in (1, 9):
        usage = f',"usageMetadata"{colon}{{"candidatesTokenCount":{count}}}'
        verbatim.feed(unfinished("Hi.", usage))
    verbatim.feed(unfinished("usageMetadata"))
    assert verbatim.usage == Usage(output=9)


def test_reasoning_in_unparsed_frames_does_not_count_as_content() -> None:
    verbatim = NativeStreamTranslator(
        GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True)
    )
    thought = answer([{"text": 'Hm "text".', "thought": True}], candidate={})
    for _ in range(3):
        verbatim.feed(b"data: " + thought + b"\n\n")
    end = answer([], candidate={"finishReason": "OTHER"})
    with pytest.raises(APIError, match="failed with OTHER"):
        verbatim.feed(b"data: " + end + b"\n\n")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"totalTokenCount": 3}, None),
        ({"promptTokenCount": 3}, Usage(input=3)),
        (
            {
                "promptTokenCount": 30,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "toolUsePromptTokenCount": 4,
                "cachedContentTokenCount": 20,
                "totalTokenCount": 46,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 20},
                    {"modality": "AUDIO", "tokenCount": 10},
                    7,
                ],
                "candidatesTokensDetails": [{"modality": "AUDIO"}],
            },
            Usage(input=34, output=12, cache_read=20, reasoning=7, audio_input=10),
        ),
    ],
)
def test_usage_is_decoded(usage: Any, expected: Usage | None) -> None:
    assert GEMINI_CONTENT.decode_response(answer([], usageMetadata=usage)).usage == expected


def test_reasoning_tokens_above_the_output_do_not_make_it_negative() -> None:
    found = Response(id="x", model="m", usage=Usage(input=1, output=2, reasoning=5))
    reported = json.loads(GEMINI_CONTENT.encode_response(found, Request(model="m", messages=())))
    assert reported["usageMetadata"]["candidatesTokenCount"] == 0


def test_citations_have_positions_in_characters() -> None:
    text = "Grüße 🚀. Ruby."
    end = len(text.encode())
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}, {"other": 1}],
        "groundingSupports": [
            {
                "segment": {"startIndex": end - 5, "endIndex": end, "text": "Ruby."},
                "groundingChunkIndices": [0, 1, 2, -1],
            },
            {"groundingChunkIndices": []},
            {},
        ],
    }
    found = GEMINI_CONTENT.decode_response(
        answer([{"text": text}], candidate={"groundingMetadata": grounding})
    )
    assert found.blocks == (
        Text(
            text,
            (Citation(url="https://a.example", title="A", quote="Ruby.", start=9, end=14),),
        ),
    )


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", ErrorKind.UPSTREAM, "200 without a body"),
        (b"<html>Oops</html>", ErrorKind.UPSTREAM, "200: Oops"),
        (b"[]", ErrorKind.UPSTREAM, "200: []"),
        (b"{}", ErrorKind.UPSTREAM, "without a finish reason"),
        (
            b'{"error":{"code":503,"message":"Busy.","status":"UNAVAILABLE"}}',
            ErrorKind.OVERLOADED,
            "Busy.",
        ),
    ],
)
def test_an_invalid_response_is_an_error(body: bytes, kind: ErrorKind, message: str) -> None:
    with pytest.raises(APIError) as caught:
        GEMINI_CONTENT.decode_response(body)
    assert caught.value.kind is kind
    assert message in caught.value.message
    if body != b"{}":
        with pytest.raises(APIError) as caught:
            GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True).whole(body)
        assert caught.value.kind is kind


def test_model_and_usage_are_read_from_a_response_that_passes_through() -> None:
    body = answer([{"text": "Hi."}], usageMetadata={"promptTokenCount": 3})
    echo = GEMINI_CONTENT.native_stream(usage_wanted=True, strict_format=True)
    assert echo.whole(body) == body
    assert (echo.model, echo.usage) == ("gemini-test", Usage(input=3))


def test_a_whole_response_is_encoded() -> None:
    face = Gemini(new_id=lambda: "resp_new")
    found = Response(
        id="",
        model="m",
        blocks=(
            Reasoning("Hm."),
            Reasoning("So.", {"gemini": {"signature": "c2ln"}}),
            Reasoning("", {"gemini": {"signature": "c2ln"}}),
            Reasoning("", {"anthropic": {"redacted": "cmVk"}}),
            Text("One.", extra={"gemini": {"signature": "c2ln"}}),
            Refusal("No."),
            ToolCall("a", "f", '{"x":1}', {"gemini": {"signature": "c2ln"}}),
            ToolCall("b", "g", '{"x":'),
            Media(kind="image", media_type="image/png", data=PNG),
            Media(kind="image", url="https://a.example"),
            Opaque("gemini", {"executableCode": {"code": "x"}}),
            Opaque("anthropic", {"type": "new"}),
        ),
        stop=StopReason.FILTER,
        usage=Usage(input=9, output=5, cache_read=4, reasoning=2),
        refusal="Unsafe.",
    )
    assert json.loads(face.encode_response(found, Request(model="m", messages=()))) == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {"text": "So.", "thought": True, "thoughtSignature": "c2ln"},
                        {"text": "", "thought": True, "thoughtSignature": "c2ln"},
                        {
                            "text": "",
                            "thought": True,
                            "thoughtSignature": "YW50aHJvcGljLnJlZGFjdGVkOmNtVms=",
                        },
                        {"text": "One.", "thoughtSignature": "c2ln"},
                        {"text": "No."},
                        {
                            "functionCall": {"id": "a", "name": "f", "args": {"x": 1}},
                            "thoughtSignature": "c2ln",
                        },
                        {
                            "functionCall": {
                                "id": "b",
                                "name": "g",
                                "args": {"arguments": '{"x":'},
                            }
                        },
                        {"inlineData": {"mimeType": "image/png", "data": PNG}},
                        {"fileData": {"fileUri": "https://a.example", "mimeType": "image/jpeg"}},
                        {"executableCode": {"code": "x"}},
                    ],
                    "role": "model",
                },
                "finishReason": "SAFETY",
                "index": 0,
                "finishMessage": "Unsafe.",
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 3,
            "totalTokenCount": 14,
            "thoughtsTokenCount": 2,
            "cachedContentTokenCount": 4,
        },
        "modelVersion": "m",
        "responseId": "resp_new",
    }


@pytest.mark.parametrize(
    ("stop", "word", "reason"),
    [
        (StopReason.END, "stop", "STOP"),
        (StopReason.TOOLS, "tool_calls", "STOP"),
        (StopReason.LENGTH, "length", "MAX_TOKENS"),
        (StopReason.FILTER, "content_filter", "SAFETY"),
        (StopReason.FILTER, "RECITATION", "RECITATION"),
        (StopReason.OTHER, "pause_turn", "OTHER"),
    ],
)
def test_finish_reasons_are_encoded(stop: StopReason, word: str, reason: str) -> None:
    found = Response(id="x", model="m", stop=stop, word=word)
    reported = json.loads(GEMINI_CONTENT.encode_response(found, Request(model="m", messages=())))
    assert reported["candidates"][0]["finishReason"] == reason
