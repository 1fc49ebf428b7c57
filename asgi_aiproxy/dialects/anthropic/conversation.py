"""A conversation in Anthropic's turns, in its order.

Instructions at the beginning are the `system` prompt. Those within the conversation stay where
they are if the model takes system messages there: behind a user's turn, and before the assistant's
next or the end. One that stands elsewhere waits for the end of the user's next turn. Where there is
no such place, and for models that take none, the user says it, marked as instructions. Either is
reported.

What is written for a message depends on the messages before it and on those of its own turn only:
preserved thinking wants every request to begin as the one before did.
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects.anthropic.capabilities import Model
from asgi_aiproxy.dialects.anthropic.content import THOUGHTS, ContentWriter, Notes, cached
from asgi_aiproxy.messages import Message, Text

_MOVED = "messages[].role"


class Conversation:
    """The turns and the system prompt of one request; `add` its messages, then `end`."""

    def __init__(self, model: Model, notes: Notes) -> None:
        self._model = model
        self._notes = notes
        self._content = ContentWriter(model, notes)
        self._waiting: list[dict[str, Any]] = []  # instructions that have no place yet
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []

    def add(self, number: int, message: Message) -> None:
        """The next message, the one with this number in the request."""
        if message.role == "system":
            return self._instruct(message)
        blocks = [
            block
            for at, part in enumerate(message.parts)
            for block in self._content.blocks(
                part, f"messages[{number}].content[{at}]", role=message.role
            )
        ]
        if not blocks:
            return None
        if message.role == "assistant":
            self._place()
        elif self._waiting:
            self._notes.ignored.append(_MOVED)  # they come behind these words
        self._say(message.role, blocks)
        return None

    def end(self) -> None:
        """There are no more messages."""
        self._place()
        for turn in self.turns:
            if turn["role"] == "user":  # results must come first
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if self.turns and self.turns[-1]["role"] == "assistant":
            last = self.turns[-1]["content"][-1]
            if last["type"] == "text":  # a prefill must not end in white space
                last["text"] = last["text"].rstrip() or "…"

    @property
    def bare_call(self) -> bool:
        """Whether the turn in progress calls tools and lost its thoughts on the way."""
        for turn in reversed(self.turns):
            kinds = [block["type"] for block in turn["content"]]
            if turn["role"] == "assistant":
                return "tool_use" in kinds and kinds[0] not in THOUGHTS
            if turn["role"] == "user" and any(kind != "tool_result" for kind in kinds):
                return False
        return False

    @property
    def thoughts(self) -> bool:
        """Whether any thoughts are sent back."""
        blocks = (block for turn in self.turns for block in turn["content"])
        return any(block["type"] in THOUGHTS for block in blocks)

    def forget_thoughts(self) -> None:
        """Leave out all thoughts."""
        for turn in self.turns:
            turn["content"] = [b for b in turn["content"] if b["type"] not in THOUGHTS]
        self.turns = [turn for turn in self.turns if turn["content"]]
        self._notes.ignored.append("messages[].reasoning_details")

    def _instruct(self, message: Message) -> None:
        texts = [
            cached({"type": "text", "text": part.text}, part)
            for part in message.parts
            if isinstance(part, Text) and part.text.strip()
        ]
        if any(not isinstance(part, Text) for part in message.parts):
            self._notes.ignored.append("messages[].content")
        if not self.turns:
            self.system += texts
        elif self._model.system:
            self._waiting += texts
        else:
            self._as_user(texts)

    def _place(self) -> None:
        """The instructions that wait get their place: a turn of the user has just ended."""
        texts, self._waiting = self._waiting, []
        if texts and self.turns[-1]["role"] == "user":
            self.turns.append({"role": "system", "content": texts})
        else:
            self._as_user(texts)

    def _as_user(self, texts: list[dict[str, Any]]) -> None:
        if texts:
            self._notes.ignored.append(_MOVED)
            marked = [{**text, "text": f"<system>\n{text['text']}\n</system>"} for text in texts]
            self._say("user", marked)

    def _say(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})
