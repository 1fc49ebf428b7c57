"""Unusual data that vendors may send does not fail an answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from asgi_aiproxy.dialects import OPENAI_CHAT, Anthropic, Gemini, OpenAIChat
from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
    OpenAINativeStream,
)
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import SSEFramer
from asgi_aiproxy.messages import Opaque, Request, Response, StopReason, ToolCall, Usage, fold
from asgi_aiproxy.translate import NativeStreamTranslator, StreamTranslator
from tests.support import chat_stream_reader as strict
from tests.support.stream_fixtures import languages, meaning, read

REQUEST = Request(model="m", messages=(), stream=True)


def sse(*events: Any) -> bytes:
    """Events, given as objects or as raw data."""
    data = (e if isinstance(e, bytes) else json.dumps(e).encode() for e in events)
    return b"".join(b"data: " + piece + b"\n\n" for piece in data)


def streamed(dialect: str, *events: Any) -> Response:
    return read(languages()[dialect], SSEFramer(), sse(*events))


def said(response: Response) -> str:
    return meaning(response).said


# ── Anthropic ────────────────────────────────────────────────────────────────

START = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": None}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": None}
STOP = {"type": "message_stop"}


def block(index: Any, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": members}


def delta(index: Any, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": members}


def stop(index: Any) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


TEXT = (block(0, type="text", text=""), delta(0, type="text_delta", text="Hi."), stop(0))
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


@pytest.mark.parametrize(
    "events",
    [
        (START, {"type": "ping"}, {"type": "news", "index": 0}, *TEXT, END, STOP),
        (START, *TEXT[:1], b": keep-alive", b"", b"[]", *TEXT[1:], END, STOP),
        (START, TEXT[0], delta(0, type="new_delta", text=7), *TEXT[1:], END, STOP),
        (START, TEXT[0], delta(0, type="text_delta", text=None), *TEXT[1:], END, STOP),
        (START, TEXT[0], delta(0), {"type": "content_block_delta"}, *TEXT[1:], END, STOP),
        (START, *TEXT[1:], END, STOP),
        (START, *TEXT[:2], END, STOP),
        (START, *TEXT, stop(0), stop(7), END, STOP),
        (START, START, *TEXT, END, {**END, "delta": {"stop_reason": None}}, STOP),
        (START, *TEXT, {**END, "delta": None}, END, STOP, STOP, {"type": "ping"}),
        (*TEXT, END, STOP),
        (START, block(0, type="text", text="Hi", citations=None), delta(0, type="text_delta",
         text="."), stop(0), END, STOP),
        (START, block("a", type="text"), delta("a", type="text_delta", text="Hi."), END, STOP),
        (START, {"type": "content_block_start", "index": 0, "content_block": None}, stop(0),
         block(0, type="text", text=""), delta(0, type="text_delta", text="Hi."), END, STOP),
        (START, *(e | {"index": 0.0} for e in TEXT), END, STOP),
    ],
)  # fmt: skip
def test_unusual_frames_of_anthropics_format_lose_no_text(events: tuple[Any, ...]) -> None:
    response = streamed("anthropic", *events)
    assert said(response) == "Hi."
    assert response.stop is StopReason.END


def test_one_index_for_all_blocks_is_accepted() -> None:
    call = (block(0, **CALL), delta(0, type="input_json_delta", partial_json='{"a":1}'), stop(0))
    response = streamed("anthropic", START, *TEXT, *call, *TEXT, END, STOP)
    assert said(response) == "Hi.Hi."
    assert meaning(response).calls == (("toolu_1", "f", {"a": 1}),)


@pytest.mark.parametrize(
    ("start", "pieces", "arguments"),
    [
        ({}, ["", '{"a":', "", "1}"], {"a": 1}),
        ({}, [], {}),
        ({}, ["", ""], {}),
        ({"input": {"a": 1}}, [], {"a": 1}),
        ({"input": {"a": 1}}, ['{"a":1}'], {"a": 1}),
        ({"input": '{"a":1}'}, [], {"a": 1}),
        ({"input": None}, ["{}"], {}),
    ],
)
def test_the_input_of_a_tool_comes_in_pieces_or_whole(
    start: dict[str, Any], pieces: list[str], arguments: dict[str, Any]
) -> None:
    deltas = [delta(0, type="input_json_delta", partial_json=piece) for piece in pieces]
    response = streamed("anthropic", START, block(0, **CALL | start), *deltas, stop(0), END, STOP)
    assert meaning(response).calls == (("toolu_1", "f", arguments),)


def test_a_call_without_an_id_gets_one() -> None:
    whole = {"content": [{"type": "tool_use", "name": "f", "input": {}}], "stop_reason": "tool_use"}
    answers = (
        streamed("anthropic", START, block(0, type="tool_use", name="f"), stop(0), END, STOP),
        Anthropic().decode_response(json.dumps(whole).encode()),
    )
    for answer in answers:
        (call,) = answer.blocks
        assert isinstance(call, ToolCall)
        assert call.id


def test_a_truncated_input_of_a_hosted_tool_does_not_fail_the_answer() -> None:
    start = block(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={})
    half = delta(0, type="input_json_delta", partial_json='{"query": "a')
    (found,) = streamed("anthropic", START, start, half, stop(0), END, STOP).blocks
    assert isinstance(found, Opaque)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Busy"}, ErrorKind.OVERLOADED),
        ({"type": "brand_new_error", "message": "Busy"}, ErrorKind.UPSTREAM),
        ({"message": "Busy"}, ErrorKind.UPSTREAM),
        ("Busy", ErrorKind.UPSTREAM),
        (None, ErrorKind.UPSTREAM),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_an_error_frame_of_any_type_is_an_error(error: Any, kind: ErrorKind, named: bool) -> None:
    if not named and error is None:
        return
    frame = {"error": error} | ({"type": "error"} if named else {})
    with pytest.raises(APIError) as caught:
        streamed("anthropic", START, *TEXT, frame)
    assert caught.value.kind is kind
    assert "Busy" in caught.value.message or error is None


@pytest.mark.parametrize(
    "content",
    [
        "Hi.",
        [{"type": "text", "text": "Hi.", "citations": None}],
        [None, {"type": "news"}, {"type": "text", "text": "Hi.", "citations": [7]}],
    ],
)
def test_unusual_content_of_a_whole_message_is_read(content: Any) -> None:
    body = {"content": content, "stop_reason": None, "usage": {"output_tokens": 3.0}, "id": 7}
    response = Anthropic().decode_response(json.dumps(body).encode())
    assert said(response) == "Hi."
    assert response.usage == Usage(output=3)


def test_the_explanation_of_a_refusal_reaches_anthropics_clients_and_is_sent_back() -> None:
    details = {"type": "refusal", "category": None, "explanation": "No."}
    end = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}}
    response = streamed("anthropic", START, *TEXT, end, STOP)
    assert (response.stop, response.refusal) == (StopReason.FILTER, "No.")
    face = Anthropic()
    whole = json.loads(face.encode_response(response, REQUEST))
    assert whole["stop_details"] == details
    plain = Response(id="a", model="m", stop=StopReason.FILTER, refusal="No.")
    assert json.loads(face.encode_response(plain, REQUEST))["stop_details"] == details


def test_all_usage_survives_anthropics_client_api() -> None:
    usage = Usage(
        input=100, output=9, cache_read=20, cache_write=50, cache_write_1h=30, reasoning=4
    )
    response = Response(id="a", model="m", usage=usage)
    face = Anthropic()
    assert face.decode_response(face.encode_response(response, REQUEST)).usage == usage


# ── OpenAI and those who nearly speak its format ─────────────────────────────


def chunk(*choices: Any, **members: Any) -> dict[str, Any]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": list(choices), **members}


def choice(delta: Any, finish: Any = None, **members: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, **members}


ROLE = chunk(choice({"role": "assistant", "content": ""}))
HI, DOT = chunk(choice({"content": "Hi"})), chunk(choice({"content": "."}))
DONE = chunk(choice({}, "stop"))

ODD_STREAMS = [
    (ROLE, HI, DOT, DONE),
    (ROLE, HI, DOT, DONE, b"[DONE] "),
    (chunk(), ROLE, chunk(), HI, b"", b": ping", DOT, chunk(choices=None), DONE),
    (ROLE, HI, chunk(choice(None)), chunk(choice({"content": None})), DOT, DONE),
    (ROLE, HI, chunk(choice({"news": [1]}), news={"a": 1}), DOT, DONE),
    (ROLE, HI, chunk(choice({"content": "."}, index=0.0)), DONE),
    (ROLE, chunk(choice({"content": [{"type": "text", "text": "Hi"}, 7, None]})), DOT, DONE),
    (ROLE, HI, chunk(choice({"content": "."}, "STOP"))),
    (ROLE, HI, DOT, chunk(choice({}, "brand_new_reason"))),
    (ROLE, HI, DOT, chunk(choice({"content": ""}, ""), usage=None), DONE),
    (ROLE, HI, chunk(choice({"content": "."}, usage={"prompt_tokens": 3})), DONE),
    (ROLE, HI, chunk(choice({"content": "."}), choice({"content": "x"}, index=1)), DONE),
    (ROLE, HI, chunk(choice({"content": ".", "images": [7], "annotations": {}})), DONE),
    (ROLE, HI, chunk(choice({"content": ".", "tool_calls": [], "refusal": None})), DONE),
    (ROLE, HI, chunk(choice({"content": ".", "tool_calls": [None, {}], "audio": 1})), DONE),
    (ROLE, HI, chunk(choice({"content": ".", "role": "assistant"})), DONE),
    (ROLE, HI, chunk(choice({"content": "."}), id="c2", created=2.5, model=None), DONE),
    (ROLE, HI, chunk(choice({"content": ".", "function_call": "x", "refusal": []})), DONE),
]


@pytest.mark.parametrize("events", ODD_STREAMS, ids=range(len(ODD_STREAMS)))
def test_unusual_chunks_of_openais_format_lose_no_text(events: tuple[Any, ...]) -> None:
    response = streamed("openai_chat", *events)
    assert said(response) == "Hi."
    assert response.stop is StopReason.END


@pytest.mark.parametrize("events", ODD_STREAMS, ids=range(len(ODD_STREAMS)))
def test_unusual_chunks_are_normalized_for_strict_clients(events: tuple[Any, ...]) -> None:
    normalized = NativeStreamTranslator(NormalizingNativeStream(usage_wanted=False, new_id="c"))
    out = b"".join([normalized.feed(sse(event)) for event in events]) + normalized.close()
    chunks, done = strict.chunks_in(out)
    assert done
    strict.read(chunks)
    words = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert "".join(word for word in words if word).startswith("Hi.")


def test_a_valid_chunk_passes_the_normalizer_unchanged() -> None:
    normalized = NativeStreamTranslator(NormalizingNativeStream(usage_wanted=False, new_id="c"))
    normalized.feed(sse(ROLE, HI))
    odd = b'data: {"id":"c1", "object":"chat.completion.chunk","created":1,"model":"m","x":[1.50],'
    odd += b'"choices":[{"index":0,"delta":{"content":"."},"finish_reason":null,"logprobs":null}]'
    assert normalized.feed(odd + b',"usage":null}\n\n') == odd + b"}\n\n"
    assert b'"content":"."' in normalized.feed(odd + b"}\r\n\r\n")


def test_moonshots_usage_inside_a_choice_is_usage() -> None:
    counted = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    response = streamed("openai_chat", ROLE, HI, DOT, chunk(choice({}, "stop", usage=counted)))
    assert response.usage == Usage(input=3, output=4)


@pytest.mark.parametrize(
    ("word", "stop"),
    [
        ("LENGTH", StopReason.LENGTH),
        ("MAX_TOKENS", StopReason.LENGTH),
        ("max_output_tokens", StopReason.LENGTH),
        ("SAFETY", StopReason.FILTER),
        ("refusal", StopReason.FILTER),
        ("tool_use", StopReason.TOOLS),
        ("COMPLETE", StopReason.END),
        ("anything", StopReason.END),
    ],
)
def test_finish_reasons_of_other_vendors_are_decoded(word: str, stop: StopReason) -> None:
    assert streamed("openai_chat", ROLE, HI, chunk(choice({}, word))).stop is stop


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"message": "Busy", "code": "server_is_overloaded"}}, ErrorKind.OVERLOADED),
        ({"error": {"message": "Busy", "code": 429}}, ErrorKind.LIMITED),
        ({"error": {"message": "Busy", "code": "429"}}, ErrorKind.LIMITED),
        ({"error": {"message": "Busy", "status": 503, "type": "new"}}, ErrorKind.OVERLOADED),
        ({"error": {"message": "Busy", "type": "brand_new"}}, ErrorKind.UPSTREAM),
        ({"error": "Busy"}, ErrorKind.UPSTREAM),
        ({"object": "error", "message": "Busy", "code": 400}, ErrorKind.INVALID),
        (chunk(choice({}, "network_error", error={"message": "Busy"})), ErrorKind.UPSTREAM),
    ],
)
def test_errors_within_a_stream_are_found_in_many_formats(error: Any, kind: ErrorKind) -> None:
    with pytest.raises(APIError) as caught:
        streamed("openai_chat", ROLE, HI, error)
    assert caught.value.kind is kind
    assert "Busy" in caught.value.message


def test_a_whole_response_with_unusual_members_is_read() -> None:
    message: dict[str, Any] = {
        "role": None,
        "content": [{"type": "text", "text": "Hi."}, None, {"type": "news"}],
        "tool_calls": [None, {"id": None, "function": None}, {"custom": {"name": "g", "input": 7}}],
        "images": [None],
        "annotations": [None, {"type": "url_citation"}],
        "refusal": {},
        "function_call": "x",
        "extra_content": 7,
    }
    body = {"id": 7, "model": None, "choices": [{"message": message, "finish_reason": "new"}]}
    response = OpenAIChat().decode_response(json.dumps(body).encode())
    assert said(response) == "Hi."
    assert [call[1] for call in meaning(response).calls] == ["", "g"]


def test_an_error_in_place_of_choices_is_reported() -> None:
    body = b'{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}'
    with pytest.raises(APIError, match="insufficient balance"):
        OpenAIChat().decode_response(body)


@pytest.mark.parametrize("odd", [b'"model":7,"usage":[]', b'"model":null,"usage":"x"'])
def test_unusual_model_and_usage_do_not_fail_a_response_that_passes_through(odd: bytes) -> None:
    body = b'{%b,"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}]}' % odd
    echo = OpenAINativeStream(usage_wanted=True)
    assert echo.whole(body) == body
    assert echo.usage is None


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (b'{"a":1}', '{"a":1}'),
        (b'{"choices":[]}', '{"choices":[]}'),
        (b'{"choices":null,"model":"m"}', '{"choices":null,"model":"m"}'),
        (b'{"base_resp":{"status_code":1008,"status_msg":"no money"}}', "no money"),
    ],
)
def test_a_response_without_choices_is_an_error(body: bytes, reported: str) -> None:
    """Then another provider is tried, where before the client got an empty answer."""
    with pytest.raises(APIError, match=re.escape(reported)) as caught:
        OpenAINativeStream(usage_wanted=True).whole(body)
    assert caught.value.retryable


def test_a_stream_with_only_done_is_an_error() -> None:
    translator = NativeStreamTranslator(OpenAINativeStream(usage_wanted=True))
    translator.feed(b"data: [DONE]\n\n")
    assert not translator.started
    with pytest.raises(APIError, match="without a finish reason"):
        translator.close()


def test_invalid_data_does_not_start_a_response_that_passes_through() -> None:
    translator = NativeStreamTranslator(OpenAINativeStream(usage_wanted=True))
    assert translator.feed(sse(b": chatter", ROLE, b"chatter")) == sse(ROLE)
    assert not translator.started
    with pytest.raises(APIError, match="could not be read"):
        translator.feed(b"data: {nonsense\n\n")


def test_unreadable_usage_in_a_response_that_passes_through_is_an_error_event() -> None:
    translator = NativeStreamTranslator(OpenAINativeStream(usage_wanted=True))
    translator.feed(sse(ROLE, HI))
    with pytest.raises(APIError, match="could not be read") as caught:
        translator.feed(sse(DOT) + b'data: {"usage":{nonsense\n\n')
    assert translator.fail(caught.value).startswith(sse(DOT))


# ── Google ───────────────────────────────────────────────────────────────────


def google(*parts: Any, finish: Any = None, **members: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r", "modelVersion": "m", **members}


COUNTS = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
LAST = google(finish="STOP", usageMetadata=COUNTS)


@pytest.mark.parametrize(
    "events",
    [
        (google({"text": "Hi"}), google({"text": "."}), LAST),
        (google({"text": "Hi"}), google({"text": "."}, usageMetadata={"trafficType": "X"}), LAST),
        (google({"text": "Hi"}), google({"text": "."}, {"news": 1}, None), LAST),
        (google({"text": "Hi"}), b"", google({"text": ".", "news": 1}), LAST),
        (google({"text": "Hi"}), {"candidates": None}, {}, google({"text": "."}), LAST),
        (google({"text": "Hi"}), {"candidates": [{"content": None, "index": None}]},
         google({"text": ".", "thought": None}), LAST),
        (google({"text": "Hi"}), google({"text": "."}, promptFeedback={}), LAST),
        (google({"text": "Hi."}, finish="STOP"), google(usageMetadata=COUNTS)),
        (google({"text": "Hi."}), google({"text": ""}, usageMetadata=COUNTS),
         google(finish="STOP")),
        (google({"text": "Hi."}), google({"inlineData": {"data": "AA=="}, "thought": True}), LAST),
    ],
)  # fmt: skip
def test_unusual_chunks_of_googles_format_lose_no_text(events: tuple[Any, ...]) -> None:
    response = streamed("gemini", *events)
    assert said(response) == "Hi."
    assert response.stop is StopReason.END
    assert response.usage == Usage(input=3, output=4)
    assert not any(type(b).__name__ == "Media" for b in response.blocks)


@pytest.mark.parametrize(
    ("word", "stop"),
    [
        ("LANGUAGE", StopReason.FILTER),
        ("IMAGE_SAFETY", StopReason.FILTER),
        ("MALFORMED_FUNCTION_CALL", StopReason.OTHER),
        ("UNEXPECTED_TOOL_CALL", StopReason.OTHER),
        ("BRAND_NEW", StopReason.OTHER),
    ],
)
def test_googles_finish_reasons_are_decoded(word: str, stop: StopReason) -> None:
    assert streamed("gemini", google({"text": "Hi."}), google(finish=word)).stop is stop


def test_a_blocked_prompt_is_an_answer_without_text() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT"}
    response = streamed("gemini", {"promptFeedback": feedback, "usageMetadata": COUNTS})
    assert response.stop is StopReason.FILTER
    assert "PROHIBITED_CONTENT" in response.refusal


@pytest.mark.parametrize(
    "args",
    [{}, {"args": None}, {"args": {}}, {"args": "{}"}],
    ids=["none", "null", "empty", "text"],
)
def test_a_call_without_arguments_has_an_empty_object(args: dict[str, Any]) -> None:
    part = {"functionCall": {"name": "f", **args}, "thoughtSignature": "s"}
    response = streamed("gemini", google(part, finish="STOP"))
    (call,) = response.blocks
    assert isinstance(call, ToolCall)
    assert (call.arguments, call.extra) == ("{}", {"gemini": {"signature": "s"}})
    assert response.stop is StopReason.TOOLS


def test_a_whole_answer_of_google_needs_no_finish_reason() -> None:
    response = Gemini().decode_response(json.dumps(google({"text": "Hi."})).encode())
    assert (said(response), response.stop) == ("Hi.", StopReason.END)
    with pytest.raises(APIError):
        Gemini().decode_response(b'{"usageMetadata":{}}')


@pytest.mark.parametrize("error", [{"code": 429, "message": "Busy"}, "Busy", ["Busy"]])
def test_googles_errors_within_a_stream_are_errors(error: Any) -> None:
    with pytest.raises(APIError, match="Busy"):
        streamed("gemini", google({"text": "Hi."}), {"error": error})


def test_audio_tokens_survive_googles_client_api() -> None:
    usage = Usage(input=10, output=9, reasoning=2, audio_input=6, audio_output=7)
    face = Gemini()
    whole = face.encode_response(Response(id="a", model="m", usage=usage), REQUEST)
    assert face.decode_response(whole).usage == usage


def test_a_signature_is_kept_wherever_the_answer_has_it() -> None:
    events = (
        google({"text": "Hm.", "thought": True}, {"text": "Hi.", "thoughtSignature": "one"}),
        google({"text": "", "thoughtSignature": "two"}, finish="STOP"),
    )
    response = streamed("gemini", *events)
    face = Gemini()
    again = face.decode_response(face.encode_response(response, REQUEST))
    assert again.blocks == response.blocks
    translator = StreamTranslator(SSEFramer(), face.decoder(), face.encoder(REQUEST))
    out = translator.feed(sse(*events)) + translator.close()
    assert b'"one"' in out
    assert b'"two"' in out


# ── all ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dialect", languages())
@pytest.mark.parametrize("body", [b"<html>Forbidden</html>", b"Forbidden", b""])
def test_a_firewalls_error_page_is_not_about_the_key(dialect: str, body: bytes) -> None:
    assert languages()[dialect].decode_error(403, body).kind is ErrorKind.UPSTREAM


def test_a_vendors_own_403_is_about_the_key() -> None:
    body = b'{"error":{"message":"No access","type":"permission_error"}}'
    assert OPENAI_CHAT.decode_error(403, body).kind is ErrorKind.KEY_REJECTED


def test_folding_requires_the_legal_event_order_of_all_decoders() -> None:
    with pytest.raises(ValueError, match="incomplete"):
        fold([])
