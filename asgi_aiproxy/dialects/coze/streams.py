"""Reads Coze's event stream as neutral events.

https://www.coze.com/open/docs/developer_guides/chat_v3 (streaming response)

A chat has messages of several types. `answer` is what the client gets, in deltas and then as a
whole. `function_call`, `tool_output`, `tool_response` and `verbose` report what the bot does.
`follow_up` messages are suggested questions. An answer of texts and files is JSON, which is only
read when it is whole. The sound of an answer (`conversation.audio.delta`) is left out: it repeats
the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks, decode_run
from asgi_aiproxy.dialects.coze import errors
from asgi_aiproxy.dialects.coze.events import DELTA
from asgi_aiproxy.dialects.coze.request_encoder import NAME
from asgi_aiproxy.messages import (
    Event,
    MessageEnd,
    MessageStart,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

_ANSWERS = ("answer", "", None)  # types of messages
_STOPS = {"completed": StopReason.END, "requires_action": StopReason.TOOLS}


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer, the most frequent event."""

    id: str
    type: Literal["answer"]
    content: str
    content_type: Literal["text"] = "text"
    reasoning_content: Literal[""] = ""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_answers = msgspec.json.Decoder(list[_Answer]).decode
_TEXT = Text()
_OBJECTS = "object_string"  # the type of contents with texts and files


class Decoder:
    """Converts the events of one chat to neutral events."""

    model = ""  # the bot's id is not the name of a model

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.ended = False
        self._blocks = Blocks()
        self._started = False
        self._status = ""
        self._conversation: dict[str, Any] = {}
        self._follow_ups: list[str] = []
        # Ids of messages whose text, and whose reasoning, came in deltas.
        self._streamed: set[str] = set()
        self._reasoned: set[str] = set()

    def feed(self, data: bytes) -> Sequence[Event]:
        """The neutral events of one event; raises APIError for an error."""
        if self._started:
            try:
                message = _decode_answer(data)
            except ValueError:
                pass
            else:
                self._streamed.add(message.id)
                return self._blocks.text(_TEXT, message.content) if message.content else ()
        event = _json.loads(data)
        name, payload = next(iter(event.items())) if len(event) == 1 else (DELTA, event)
        return list(self._event(name, payload))

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """The block and the texts of pieces of the answer."""
        number = self._blocks.open_text
        if number is None:
            return None
        messages = decode_run(_decode_answers, pieces)
        texts = [message.content for message in messages]
        if not texts or not all(texts):
            return None
        self._streamed.update([message.id for message in messages])
        return number, texts, len(pieces)

    def whole(self, chat: dict[str, Any]) -> Iterator[Event]:
        """The events of a chat, before `close`."""
        return self._event(f"conversation.chat.{chat.get('status')}", chat)

    def close(self) -> Sequence[Event]:
        """The end of the message, unless already returned; raises APIError if it is incomplete."""
        if self.ended:
            return ()
        if not self._status:
            raise _parsing.truncated_response_error(
                "the stream ended before the chat was completed"
            )
        self.ended = True
        stop = self._blocks.stop_reason(_STOPS.get(self._status, StopReason.OTHER))
        extra = {NAME: {"follow_ups": self._follow_ups}} if self._follow_ups else {}
        kept = str(self._conversation.get("conversation_id") or "")
        end = MessageEnd(stop, self.usage, self._status, extra=extra, conversation=kept)
        return [*self._blocks.end(), end]

    def _event(self, name: str, payload: Any) -> Iterator[Event]:
        match name:
            case _ if name == DELTA:
                yield from self._start(payload)
                yield from self._delta(payload)
            case "conversation.message.completed":
                yield from self._start(payload)
                yield from self._completed(payload)
            case "conversation.chat.completed" | "conversation.chat.requires_action":
                yield from self._start(payload)
                if isinstance(usage := payload.get("usage"), dict):
                    self.usage = decode_usage(usage)
                self._status = name.rpartition(".")[2]
                if self._status == "requires_action":
                    yield from self._calls(payload.get("required_action") or {})
            case "conversation.chat.failed" | "conversation.chat.canceled":
                error = payload.get("last_error") or {}
                if not error.get("msg"):
                    error = {**error, "msg": f"The chat {name.rpartition('.')[2]}."}
                raise errors.to_api_error(error)
            case "error":
                raise errors.to_api_error(
                    payload if isinstance(payload, dict) else {"msg": payload}
                )
            case "done":
                yield from self.close()
            case "conversation.chat.created" | "conversation.chat.in_progress":
                yield from self._start(payload)
            case "" if isinstance(payload, dict) and payload.get("code"):
                raise errors.to_api_error(payload)

    def _start(self, payload: dict[str, Any]) -> Iterator[Event]:
        """Begin the message; its id is that of the chat, which messages name too."""
        if self._started:
            return
        self._started = True
        chat_id = payload.get("chat_id") or payload.get("id") or ""
        ids = {"conversation_id": payload.get("conversation_id"), "chat_id": chat_id}
        self._conversation = {name: value for name, value in ids.items() if value}
        yield MessageStart(str(chat_id), "")

    def _delta(self, message: dict[str, Any]) -> Iterator[Event]:
        if message.get("type") not in _ANSWERS:
            return
        yield from self._reasoning(message)
        text = _parsing.get_text(message, "content")
        if text and message.get("content_type") != _OBJECTS:
            self._streamed.add(_parsing.get_text(message, "id"))
            yield from self._blocks.text(_TEXT, text)

    def _reasoning(self, message: dict[str, Any]) -> Iterator[Event]:
        if thought := _parsing.get_text(message, "reasoning_content"):
            self._reasoned.add(_parsing.get_text(message, "id"))
            yield from self._blocks.text(Reasoning(), thought)

    def _completed(self, message: dict[str, Any]) -> Iterator[Event]:
        """What the deltas of a message did not have."""
        message_id, text = (_parsing.get_text(message, name) for name in ("id", "content"))
        match message.get("type"):
            case "follow_up":
                self._follow_ups.append(text)
            case kind if kind in _ANSWERS:
                if message_id not in self._reasoned:
                    yield from self._reasoning(message)
                if message_id not in self._streamed:
                    objects = message.get("content_type") == _OBJECTS
                    yield from self._objects(text) if objects else self._text(text)

    def _text(self, text: str) -> Sequence[Event]:
        return self._blocks.text(_TEXT, text) if text else ()

    def _objects(self, content: str) -> Iterator[Event]:
        """The parts of an answer of texts and files; each file as a line with its address."""
        try:
            parts = _parsing.objects(_json.loads(content))
        except ValueError:
            parts = [{"text": content}]
        for part in parts:
            url = _parsing.get_text(part, "file_url")
            yield from self._text(f"\n{url}\n" if url else _parsing.get_text(part, "text"))

    def _calls(self, action: dict[str, Any]) -> Iterator[Event]:
        outputs = action.get("submit_tool_outputs") or {}
        for number, call in enumerate(_parsing.objects(outputs.get("tool_calls"))):
            function = call.get("function")
            if not isinstance(function, dict):
                continue  # a question of the bot, which the text repeats
            id, called = _parsing.get_text(call, "id"), _parsing.get_text(function, "name")
            opening = ToolCall(id, called, extra={NAME: self._conversation})
            yield from self._blocks.call(number, opening)
            if arguments := _parsing.get_text(function, "arguments"):
                yield from self._blocks.arguments(number, arguments)


def decode_usage(usage: Mapping[str, Any]) -> Usage:
    """Read `usage`."""
    return Usage(
        input=_parsing.read_count(usage, "input_count"),
        output=_parsing.read_count(usage, "output_count"),
    )
