"""Writes a conversation as Anthropic's turns.

System messages at the start become the `system` prompt. Later ones keep their place if the model
supports system messages within a conversation: after a user turn, and before the next assistant
turn or the end. One in another place is moved to the end of the next user turn. If there is no such
place, or the model does not support them, the instructions become user text within `<system>`.
Moved or rewritten instructions are reported.

The output for a message only depends on the messages before it and those of the same turn:
preserved thinking requires that every request starts exactly like the previous one.
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.dialects._claude.capabilities import Model
from asgi_aiproxy.dialects.anthropic.content import THOUGHTS, ContentWriter, Notes, cached
from asgi_aiproxy.messages import Message, Text

_MOVED_INSTRUCTIONS = "messages[].role"


class Conversation:
    """The turns and the system prompt of one request: `add` each message, then `end`."""

    def __init__(self, model: Model, notes: Notes) -> None:
        self._model = model
        self._notes = notes
        self._content = ContentWriter(model, notes)
        self._waiting: list[dict[str, Any]] = []  # instructions without a place so far
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []

    def add(self, number: int, message: Message) -> None:
        """Add the next message; `number` is its index in the request."""
        if message.role == "system":
            return self._add_instructions(message)
        blocks = [
            block
            for index, part in enumerate(message.parts)
            for block in self._content.blocks(
                part, f"messages[{number}].content[{index}]", role=message.role
            )
        ]
        if not blocks:
            return None
        if message.role == "assistant":
            self._place_instructions()
        elif self._waiting:
            self._notes.ignored.append(_MOVED_INSTRUCTIONS)  # they are moved behind this message
        self._append(message.role, blocks)
        return None

    def end(self) -> None:
        """Finish the conversation after the last message."""
        self._place_instructions()
        for turn in self.turns:
            if turn["role"] == "user":  # results must come first
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if self.turns and self.turns[-1]["role"] == "assistant":
            last = self.turns[-1]["content"][-1]
            if last["type"] == "text":  # a prefilled answer must not end with white space
                last["text"] = last["text"].rstrip() or "…"

    @property
    def bare_call(self) -> bool:
        """Whether the current turn has tool calls whose thinking blocks are missing."""
        for turn in reversed(self.turns):
            kinds = [block["type"] for block in turn["content"]]
            if turn["role"] == "assistant":
                return "tool_use" in kinds and kinds[0] not in THOUGHTS
            if turn["role"] == "user" and any(kind != "tool_result" for kind in kinds):
                return False
        return False

    @property
    def has_thinking(self) -> bool:
        """Whether the conversation contains thinking blocks."""
        blocks = (block for turn in self.turns for block in turn["content"])
        return any(block["type"] in THOUGHTS for block in blocks)

    def remove_thinking(self) -> None:
        """Remove all thinking blocks."""
        for turn in self.turns:
            turn["content"] = [b for b in turn["content"] if b["type"] not in THOUGHTS]
        self.turns = [turn for turn in self.turns if turn["content"]]
        self._notes.ignored.append("messages[].reasoning_details")

    def _add_instructions(self, message: Message) -> None:
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
            self._add_as_user_text(texts)

    def _place_instructions(self) -> None:
        """Place the waiting instructions; called when a user turn has ended."""
        texts, self._waiting = self._waiting, []
        if texts and self.turns[-1]["role"] == "user":
            self.turns.append({"role": "system", "content": texts})
        else:
            self._add_as_user_text(texts)

    def _add_as_user_text(self, texts: list[dict[str, Any]]) -> None:
        if texts:
            self._notes.ignored.append(_MOVED_INSTRUCTIONS)
            marked = [{**text, "text": f"<system>\n{text['text']}\n</system>"} for text in texts]
            self._append("user", marked)

    def _append(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})
