"""Answers of servers that copy the Responses API get what strict clients require."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.dialects import OPENAI_RESPONSES
from asgi_aiproxy.translate import NativeStreamTranslator
from tests.dialects.unusual.case import typed
from tests.dialects.unusual.openai_responses import CREATED, HEAD, MESSAGE, TEXT, added, end

BARE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}


def relayed(data: bytes, *, strict: bool, at: int | None = None) -> bytes:
    stream = OPENAI_RESPONSES.native_stream(usage_wanted=True, strict_format=strict)
    translator = NativeStreamTranslator(stream)
    out = b"".join([translator.feed(part) for part in (data[:at], data[at:] if at else b"")])
    return out + translator.close()


def found(data: bytes) -> list[Any]:
    return [
        json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: {")
    ]


@pytest.mark.parametrize("at", [None, 40, 700, 1500])
def test_a_message_that_starts_has_content_and_usage_its_details(at: int | None) -> None:
    sent = typed(*CREATED, added(ITEM), *TEXT[1:], end(MESSAGE, usage=BARE)) + b"data: [DONE]\n\n"
    events = found(relayed(sent, strict=False, at=at))
    assert events[2]["item"] == {**ITEM, "content": []}
    usage = events[-1]["response"]["usage"]
    assert usage == {
        **BARE,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    assert [event["type"] for event in events] == [event["type"] for event in found(sent)]
    assert b"[DONE]" not in relayed(sent, strict=False)


def test_what_lacks_nothing_passes_as_it_came() -> None:
    sent = typed(*CREATED, *TEXT, end(MESSAGE))
    assert relayed(sent, strict=False) == sent
    bare = typed(*CREATED, added(ITEM), *TEXT[1:], end(MESSAGE, usage=BARE))
    assert relayed(bare, strict=True) == bare


def test_usage_of_a_whole_answer_has_its_details() -> None:
    body = json.dumps({**HEAD, "status": "completed", "output": [MESSAGE], "usage": BARE}).encode()
    stream = OPENAI_RESPONSES.native_stream(usage_wanted=True, strict_format=False)
    usage = json.loads(stream.whole(body))["usage"]
    assert usage["input_tokens_details"] == {"cached_tokens": 0}
    exact = OPENAI_RESPONSES.native_stream(usage_wanted=True, strict_format=True)
    assert exact.whole(body) == body
