"""Reads the answers of ChatGPT's web site as neutral events.

An event is the whole state of a message so far (a snapshot), or, with `delta_encoding` v1, a change
of the last state: `{"p": path, "o": operation, "v": value}`, where a missing path or operation is
that of the change before. The text that a snapshot has more than the one before is the increment.
Messages of others than the assistant, and those to a tool instead of to `all`, are not the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects._blocks import Blocks
from asgi_aiproxy.dialects.chatgpt_web.request_encoder import NAME
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.messages import Event, MessageEnd, MessageStart, StopReason, Text, Usage

_STOPS = {"stop": StopReason.END, "interrupted": StopReason.END, "max_tokens": StopReason.LENGTH}
_DONE = b"[DONE]"


class Decoder:
    """Converts the events of one answer to neutral events."""

    usage: Usage | None = None  # the site reports none

    def __init__(self) -> None:
        self.ended = False
        self.model = ""
        self._blocks = Blocks()
        self._started = False
        self._state: Any = None
        self._path, self._operation = "", "add"
        self._message_id = ""
        self._text = ""
        self._finish = ""
        self._complete = False
        self._ids: dict[str, str] = {}

    def feed(self, data: bytes) -> Sequence[Event]:
        """The neutral events of one event; raises APIError for an error."""
        if data.strip() == _DONE:
            return self.close() if self._started else ()
        value = _json.loads(data)
        if not isinstance(value, dict) or "type" in value:
            return ()  # the version of the encoding, bookkeeping
        if "v" in value and "message" not in value:
            self._change(value)
        else:
            self._state = value
        return list(self._snapshot(self._state)) if isinstance(self._state, dict) else ()

    def run(self, pieces: list[bytes]) -> tuple[int, list[str], int] | None:
        """Not supported: the meaning of an event depends on those before it."""
        return None

    def close(self) -> Sequence[Event]:
        """The end of the message, unless already returned; raises APIError if it is incomplete."""
        if self.ended:
            return ()
        if not self._complete:
            raise _parsing.truncated_response_error("the stream ended before the answer did")
        self.ended = True
        stop = _STOPS.get(self._finish, StopReason.END)
        extra = {NAME: dict(self._ids)} if self._ids else {}
        return [*self._blocks.end(), MessageEnd(stop, None, self._finish, extra=extra)]

    def _change(self, change: dict[str, Any]) -> None:
        self._path = change.get("p", self._path)
        self._operation = change.get("o", self._operation)
        value = change["v"]
        if self._operation == "patch" and isinstance(value, list):
            for each in value:
                if isinstance(each, dict) and "v" in each:
                    operation = each.get("o", "replace")
                    self._state = _apply(self._state, _steps(each.get("p", "")), operation,
                                         each["v"])  # fmt: skip
            return
        self._state = _apply(self._state, _steps(self._path), self._operation, value)

    def _snapshot(self, state: dict[str, Any]) -> Iterator[Event]:
        if error := state.get("error"):
            message = _parsing.get_text(error, "message") if isinstance(error, dict) else error
            raise APIError(ErrorKind.UPSTREAM, str(message or "The site reported an error."))
        message = state.get("message")
        if not isinstance(message, dict) or not _is_answer(message):
            return
        metadata = message.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        self.model = _parsing.get_text(metadata, "model_slug") or self.model
        own = _parsing.get_text(message, "id")
        ids = {
            "conversation_id": _parsing.get_text(state, "conversation_id"),
            "parent_message_id": _parsing.get_text(metadata, "parent_id"),
            "last_message_id": own,
        }
        self._ids |= {name: value for name, value in ids.items() if value}
        if not self._started:
            self._started = True
            yield MessageStart(own, self.model)
        if own != self._message_id:  # another message of the same answer
            self._message_id, self._text = own, ""
        text = _text(message)
        if text and text != self._text:
            start = len(self._text) if text.startswith(self._text) else _common(text, self._text)
            if text[start:]:
                yield from self._blocks.text(Text(), text[start:])
            self._text = text
        details = metadata.get("finish_details")
        if isinstance(details, dict):
            self._finish = _parsing.get_text(details, "type") or self._finish
        if message.get("end_turn") is True or self._finish:
            self._complete = True


def _is_answer(message: dict[str, Any]) -> bool:
    author = message.get("author")
    role = author.get("role") if isinstance(author, dict) else None
    return role == "assistant" and message.get("recipient", "all") == "all"


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return "".join(part for part in parts if isinstance(part, str)) if parts else ""


def _common(one: str, other: str) -> int:
    """The number of characters that two texts begin with in common."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _steps(path: str) -> list[str]:
    """The steps of a JSON pointer (RFC 6901)."""
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _apply(state: Any, steps: Sequence[str], operation: str, value: Any) -> Any:
    """The state after a change. A path that the state does not have changes nothing."""
    if not steps:
        return _combined(state, value) if operation == "append" else value
    holder = state
    for step in steps[:-1]:
        holder = _get(holder, step)
    last = steps[-1]
    if operation == "append":
        value = _combined(_get(holder, last), value)
    if isinstance(holder, dict):
        holder[last] = value
    elif isinstance(holder, list) and last.isdecimal():
        if int(last) < len(holder):
            holder[int(last)] = value
        else:
            holder.append(value)
    return state


def _get(holder: Any, step: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(step)
    if isinstance(holder, list) and step.isdecimal() and int(step) < len(holder):
        return holder[int(step)]
    return None


def _combined(old: Any, new: Any) -> Any:
    """`append`: texts and lists are joined, objects merged."""
    match old, new:
        case (str(), str()) | (list(), list()):
            return old + new
        case dict(), dict():
            return {**old, **new}
    return new if old is None else old
