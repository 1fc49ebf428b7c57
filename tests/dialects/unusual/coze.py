# ruff: noqa: E501 (a case a line)
"""Coze's chat API. https://www.coze.com/open/docs/developer_guides/chat_v3

It has no refusals and no limit of the answer's length, and is always requested as a stream.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.errors import ErrorKind
from tests.dialects.unusual.case import Case, data

HI = "Hi there"
COUNTS = {"token_count": 13, "input_count": 9, "output_count": 4}
COUNTED = (9, 4, 0, 0)


def sent(name: str, payload: Any) -> bytes:
    return b"event:%b\ndata:%b\n\n" % (name.encode(), data(payload))


def chat(status: str, **more: Any) -> bytes:
    payload = {"id": "7001", "conversation_id": "7000", "bot_id": "1", "status": status, **more}
    return sent(f"conversation.chat.{status}", payload)


def answer(kind: str = "delta", **more: Any) -> bytes:
    payload = {
        "id": "7002",
        "conversation_id": "7000",
        "bot_id": "1",
        "chat_id": "7001",
        "role": "assistant",
        "type": "answer",
        "content": "",
        "content_type": "text",
        **more,
    }
    return sent(f"conversation.message.{kind}", payload)


def text(piece: str) -> bytes:
    return answer(content=piece)


def called(*found: Any) -> bytes:
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": list(found)}}
    return chat("requires_action", usage=COUNTS, required_action=action)


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


HEAD = (chat("created"), chat("in_progress"))
START = (*HEAD, text("Hi"), text(" there"), answer("completed", content=HI))
DONE = sent("done", "[DONE]")
END = (chat("completed", usage=COUNTS), DONE)
F, G = call("1", "f", '{"a":1}'), call("2", "g", "{}")


def stream(name: str, *events: bytes, **means: Any) -> Case:
    means = {"usage": None if means.get("error") else COUNTED, **means}
    return Case(dialect="coze", name=name, data=b"".join(events), stream=True, **means)


def said(name: str, *events: bytes, **means: Any) -> Case:
    return stream(name, *events, **{"text": HI, **means})


CASES = [
    said("plain", *START, *END),
    said("usage-missing", *START, chat("completed"), DONE, usage=None),
    said("reasoning", *HEAD, answer(reasoning_content="Hm"), answer(reasoning_content="m."), *START[2:], *END, thought="Hmm."),
    said("reasoning-repeated-at-the-end", *HEAD, answer(reasoning_content="Hmm."), answer("completed", content=HI, reasoning_content="Hmm."), *END, thought="Hmm."),
    said("several-answers", *HEAD, text("Hi"), answer("completed", content="Hi"), answer("completed", id="7003", content=" there"), *END),
    said("texts-and-files", *HEAD, answer(content='[{"type":', content_type="object_string"), answer("completed", content_type="object_string", content='[{"type":"text","text":"Hi"},{"type":"image","file_url":"https://a.example/a.png"},{"type":"file","file_id":"1"}]'), *END, text="Hi\nhttps://a.example/a.png\n"),
    said("texts-and-files-as-text", *HEAD, answer("completed", content_type="object_string", content=HI), *END),
    said("question-of-the-bot", *START, chat("requires_action", usage=COUNTS, required_action={"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [{"id": "1", "type": "reply_message"}]}}), DONE),
    said("messages-of-tools", *HEAD, *[answer("completed", id=f"80{n}", type=kind, content="{}") for n, kind in enumerate(("function_call", "tool_output", "tool_response", "verbose", "follow_up", "knowledge"))], *START[2:], *END),
    said("done-with-a-debug-url", *START, END[0], sent("done", {"debug_url": "https://a.example"})),
    said("audio-after-the-end", *START, END[0], sent("conversation.audio.delta", {"content": "eA==", "content_type": "audio"}), DONE),
    said("unknown-events", *HEAD, sent("ping", {}), *START[2:], sent("conversation.news", {"content": "x"}), *END),
    stream("call", *HEAD, called(F), DONE, calls=(("?", "f", {"a": 1}),), finish="tools"),
    said("call-with-text", *START, called(F), DONE, calls=(("?", "f", {"a": 1}),), finish="tools"),
    stream("calls", *HEAD, called(F, G), DONE, calls=(("?", "f", {"a": 1}), ("?", "g", {})), finish="tools"),
    stream("call-empty-arguments", *HEAD, called(G), DONE, calls=(("?", "g", {}),), finish="tools"),
    stream("call-without-arguments", *HEAD, called(call("2", "g", "")), DONE, calls=(("?", "g", {}),), finish="tools"),
    stream("error-first", sent("error", {"code": 4013, "msg": "too fast"}), error=ErrorKind.LIMITED, message="too fast"),
    stream("error-without-words", sent("error", {}), error=ErrorKind.UPSTREAM, message="reported an error"),
    stream("unknown-event-only", sent("invalid", {}), error=ErrorKind.UPSTREAM),
    stream("error-midway", *START, chat("failed", last_error={"code": 5000, "msg": "out of memory"}), DONE, text=HI, error=ErrorKind.UPSTREAM, message="out of memory"),
    stream("cut-off", *START, text=HI, error=ErrorKind.UPSTREAM),
]  # fmt: skip
