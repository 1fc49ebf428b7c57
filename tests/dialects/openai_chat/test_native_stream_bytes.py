"""Chat completions that pass through keep their bytes and every unknown member."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects.openai_chat.native_stream import (
    NormalizingNativeStream,
)
from tests.dialects.openai_chat.samples import (
    normalized,
)
from tests.support import chat_stream_reader as strict

HEAD = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "fp": "fp_1"}


PROBS = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}]}


def chunk_of(delta: dict[str, Any], word: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": word}
    return {**HEAD, "system_fingerprint": "fp_2", "choices": [choice | more]}


CALLING = [
    {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}, "x": 1},
    {"index": 0, "function": {"arguments": "{}"}, "y": 2},
]


USED = {**HEAD, "system_fingerprint": "fp_2", "choices": [], "usage": {"prompt_tokens": 1}, "z": 3}


@pytest.mark.parametrize("spaces", [False, True])
@pytest.mark.parametrize(
    "chunks",
    [
        [
            chunk_of({"role": "assistant", "content": "", "refusal": None}),
            chunk_of({"content": "Hi"}, logprobs=PROBS),
            chunk_of({}, "stop", stop_reason=7),
            USED,
        ],
        [
            chunk_of({"role": "assistant", "content": "Hi"}, logprobs=PROBS) | {"usage": None},
            chunk_of({"content": "!"}) | {"usage": None},
            chunk_of({}, "length") | {"usage": None, "x_own": {"a": [1]}},
            USED,
        ],
        [
            chunk_of({"role": "assistant", "content": None, "tool_calls": CALLING[:1]}),
            chunk_of({"tool_calls": CALLING[1:]}),
            chunk_of({}, "tool_calls"),
            USED,
        ],
    ],
)
def test_a_valid_stream_of_a_compatible_server_passes_byte_for_byte(
    chunks: list[dict[str, Any]], spaces: bool
) -> None:
    separators = None if spaces else (",", ":")
    sent = [json.dumps(chunk, separators=separators).encode() for chunk in chunks]
    expected = b"".join(b"data: " + data + b"\n\n" for data in [*sent, b"[DONE]"])
    assert normalized(chunks, spaces=spaces) == expected


def test_unknown_members_of_the_last_chunk_survive_normalizing() -> None:
    ending = chunk_of({}, "eos", logprobs=PROBS, stop_reason=7) | {"usage": {"prompt_tokens": 1}}
    chunks, _ = strict.chunks_in(
        normalized([chunk_of({"role": "assistant", "content": "Hi"}), ending])
    )
    expected = chunk_of({}, "stop", logprobs=PROBS, stop_reason=7)
    usage = {**HEAD, "choices": [], "usage": {"prompt_tokens": 1}}
    assert chunks[1:] == [expected, {k: v for k, v in usage.items() if k != "fp"}]
    unasked = normalized([chunk_of({"role": "assistant", "content": "Hi"}), ending], wanted=False)
    assert strict.chunks_in(unasked)[0][1:] == [expected]


def test_a_last_chunk_with_text_keeps_its_members() -> None:
    ending = chunk_of({"role": "assistant", "content": "Hi"}, "stop", logprobs=PROBS)
    chunks, _ = strict.chunks_in(normalized([ending]))
    said, end = chunks
    assert said["choices"] == [{**ending["choices"][0], "finish_reason": None}]
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert end["system_fingerprint"] == said["system_fingerprint"] == "fp_2"


def test_unknown_members_of_a_whole_answer_survive_normalizing() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi", "own": 1}}
    body = {
        "id": "x",
        "created": 1,
        "model": "m",
        "system_fingerprint": "fp",
        "prompt_logprobs": [],
    }
    answer = json.dumps({**body, "choices": [{**choice, "logprobs": PROBS}]}).encode()
    found = json.loads(NormalizingNativeStream(usage_wanted=True, new_id="x").whole(answer))
    ended = {**choice, "logprobs": PROBS, "finish_reason": "stop"}
    assert found == {**body, "object": "chat.completion", "choices": [ended]}
