from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy.dialects import OPENAI_COMPLETIONS, OpenAICompletions, Operation
from asgi_aiproxy.dialects.openai_chat.native_stream import OpenAINativeStream
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import (
    Message,
    Reasoning,
    Refusal,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
    unfold,
)
from asgi_aiproxy.translate import NativeStreamTranslator
from tests.support.chat_stream_reader import chunks_in
from tests.support.dialect_requests import written

OPERATION = Operation("completions", "/completions", chat=True)
FACE = OpenAICompletions(now=lambda: 1.9, new_id=lambda: "cmpl-new")


def requested(**members: Any) -> Request:
    body = json.dumps({"model": "m", "prompt": "Once", **members}).encode()
    return OPENAI_COMPLETIONS.decode_request(OPERATION, body)


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", "/v1/completions", True),
        ("GET", "/v1/completions", False),
        ("POST", "/v1/chat/completions", False),
    ],
)
def test_paths_select_operations(method: str, path: str, known: bool) -> None:
    assert (OPENAI_COMPLETIONS.match(method, path) is not None) is known


def test_routing_reads_model_streaming_and_requested_usage() -> None:
    body = {"model": "m", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}
    head = OPENAI_COMPLETIONS.summarize(OPERATION, json.dumps(body).encode())
    assert (head.model, head.stream, head.usage_wanted) == ("m", True, True)
    draft = OPENAI_COMPLETIONS.native_request(OPERATION, "other", head.fields, stream=True)
    assert draft.path == "/completions"
    assert json.loads(msgspec.json.encode(draft.body)) == {**body, "model": "other"}

    plain = OPENAI_COMPLETIONS.summarize(OPERATION, b'{"model":"m","prompt":"x"}')
    assert (plain.stream, plain.usage_wanted) == (False, False)
    with pytest.raises(APIError, match="Missing required parameter: 'model'"):
        OPENAI_COMPLETIONS.summarize(OPERATION, b"{}")


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_prompt_becomes_a_user_message(prompt: Any) -> None:
    request = requested(
        prompt=prompt,
        max_tokens=5,
        temperature=0,
        top_p=0.5,
        stop="a",
        seed=1,
        presence_penalty=1,
        frequency_penalty=2,
        user="u",
        stream=True,
        stream_options={"include_usage": True},
        n=1,
        best_of=1,
        logprobs=0,
        echo=True,
        suffix=None,
    )
    assert request == Request(
        model="m",
        messages=(Message("user", (Text("Once"),)),),
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        stop=("a",),
        seed=1,
        presence_penalty=1.0,
        frequency_penalty=2.0,
        user="u",
        stream=True,
        stream_usage=True,
        extra={"openai_completions": {"echo": True}},
    )
    assert written("openai_chat", request).ignored == ("echo",)
    assert requested(stop=["a", "b"]).stop == ("a", "b")


def test_log_probabilities_that_a_chat_cannot_express_are_reported() -> None:
    for language in ("openai_chat", "anthropic", "ollama"):
        assert written(language, requested(logprobs=1)).ignored == ("logprobs",)


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        ({"prompt": ["a", "b"]}, "prompt", "must be one string"),
        ({"prompt": [1, 2]}, "prompt", "must be one string"),
        ({"prompt": [1]}, "prompt", "must be one string"),
        ({"prompt": None}, "prompt", "Missing required"),
        ({"n": 2}, "n", "must be 1"),
        ({"best_of": 3}, "best_of", "must be 1"),
        ({"max_tokens": "x"}, "max_tokens", "Invalid type"),
    ],
)
def test_options_that_a_chat_cannot_express_are_refused(
    members: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(APIError, match=message) as caught:
        requested(**members)
    assert (caught.value.kind, caught.value.param) == (ErrorKind.INVALID, param)


ANSWER = Response(
    id="",
    model="m",
    blocks=(Reasoning("Hm."), Text("upon"), Refusal(" a"), Text(" time"), ToolCall("a", "f", "{}")),
    stop=StopReason.LENGTH,
    usage=Usage(input=3, output=5),
)
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


def test_a_whole_answer_becomes_a_completion() -> None:
    reported = json.loads(FACE.encode_response(ANSWER, requested()))
    choice = {"text": "upon a time", "index": 0, "logprobs": None, "finish_reason": "length"}
    head = {"id": "cmpl-new", "object": "text_completion", "created": 1, "model": "m"}
    assert reported == {**head, "choices": [choice], "usage": USAGE}
    own = json.loads(OPENAI_COMPLETIONS.encode_response(ANSWER, requested()))
    assert own["id"].startswith("cmpl-")
    without = msgspec.structs.replace(ANSWER, usage=None)
    assert "usage" not in json.loads(FACE.encode_response(without, requested()))


@pytest.mark.parametrize("usage_wanted", [True, False])
def test_a_stream_becomes_completion_chunks(usage_wanted: bool) -> None:
    request = requested(stream=True, stream_options={"include_usage": usage_wanted})
    encoder = FACE.encoder(request)
    chunks, done = chunks_in(b"".join([encoder.feed(event) for event in unfold(ANSWER)]))
    assert done
    assert {(c["id"], c["object"], c["created"], c["model"]) for c in chunks} == {
        ("cmpl-new", "text_completion", 1, "m")
    }
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["text"] for choice in choices] == ["upon", " a", " time", ""]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
    assert [c["usage"] for c in chunks if "usage" in c] == ([USAGE] if usage_wanted else [])


def test_errors_have_openais_format() -> None:
    error = APIError(ErrorKind.OVERLOADED, "Busy.")
    body = FACE.encode_error(error)
    assert json.loads(body)["error"]["message"] == "Busy."
    assert FACE.encode_stream_error(error) == b"data: " + body + b"\n\n"
    assert FACE.encoder(requested()).fail(error) == b"data: " + body + b"\n\n"


def test_a_completion_of_the_provider_passes_and_its_usage_is_read() -> None:
    echo = OPENAI_COMPLETIONS.native_stream(usage_wanted=False, strict_format=False)
    assert isinstance(echo, OpenAINativeStream)


def test_a_completion_stream_of_the_provider_passes_byte_for_byte() -> None:
    head = b'{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":['
    data = (
        b"data: " + head + b'{"text":"","index":0,"finish_reason":null}]}\n\n'
        b"data: " + head + b'{"text":"upon","index":0,"finish_reason":null}]}\n\n'
        b"data: " + head + b'{"text":"","index":0,"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )
    translator = NativeStreamTranslator(
        OPENAI_COMPLETIONS.native_stream(usage_wanted=False, strict_format=True)
    )
    out = b""
    started = []
    for frame in data.split(b"\n\n")[:-1]:
        out += translator.feed(frame + b"\n\n")
        started.append(translator.started)
    assert out + translator.close() == data
    assert started == [False, True, True, True]
