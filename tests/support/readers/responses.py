"""Reads the Responses API strictly.

Events are numbered from 0 on. Items open in the order of their indexes, each event about an item
names its index and its id, parts open and close inside of their item, and what `.done` events,
finished items and the last event say is what the deltas said.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.readers.answer import Answer, arguments, events, filled, integer, string

ENDS = {"completed": "end", "incomplete": "", "failed": ""}
REASONS = {"max_output_tokens": "length", "content_filter": "filter"}
# Events of parts: the item's type, the member with the part's index, the member of the whole.
PIECES = {
    "output_text": ("message", "content_index", "text"),
    "refusal": ("message", "content_index", "refusal"),
    "reasoning_summary_text": ("reasoning", "summary_index", "text"),
    "function_call_arguments": ("function_call", "", "arguments"),
    "custom_tool_call_input": ("custom_tool_call", "", "input"),
}
PARTS = {
    "content_part": ("content", "content_index"),
    "reasoning_summary_part": ("summary", "summary_index"),
}
PART_KINDS = {
    "output_text": "output_text",
    "refusal": "refusal",
    "reasoning_summary_text": "summary_text",
}
_NULLABLE = ("error", "incomplete_details", "instructions", "metadata", "temperature", "top_p")


def stream(data: bytes) -> Answer:
    """Read a stream."""
    reader = _Stream()
    for number, (name, content) in enumerate(events(data)):
        event = json.loads(content)
        assert name == event["type"]
        assert integer(event["sequence_number"]) == number
        assert reader.end is None, "something follows the end"
        reader.feed(name, event)
    return reader.close()


def whole(data: bytes) -> Answer:
    """Read a whole response, or an error."""
    body = json.loads(data)
    if body.get("object") != "response":
        return Answer(error=_error(body["error"]))
    answer = Answer()
    _response(answer, body)
    assert body["status"] in ENDS
    _final(answer, body)
    return answer


@dataclass
class _Item:
    item: dict[str, Any]
    said: dict[Any, str] = field(default_factory=dict)
    closed: set[Any] = field(default_factory=set)
    kinds: dict[Any, str] = field(default_factory=dict)
    done: dict[str, Any] | None = None


class _Stream:
    def __init__(self) -> None:
        self.answer = Answer()
        self.end: dict[str, Any] | None = None
        self._heads: set[Any] = set()
        self._items: list[_Item] = []
        self._seen: list[str] = []

    def feed(self, name: str, event: dict[str, Any]) -> None:
        """Read an event."""
        self._seen.append(name)
        kind = name.removeprefix("response.")
        if name == "error":
            assert self.answer.error is None
            self.answer.error = _error(event)
            return
        if self.answer.error is not None:
            assert kind == "failed", f"{name} follows the error"
        if kind in ("created", "in_progress", *ENDS):
            self._about_all(kind, event["response"])
            return
        index = integer(event["output_index"])
        if kind == "output_item.added":
            assert index == len(self._items)
            filled(event["item"]["id"])
            item = event["item"]
            assert not item.get("content")
            assert not item.get("summary")
            if item["type"] in ("function_call", "custom_tool_call"):
                assert not item.get("arguments")
                assert not item.get("input")
            self._items.append(_Item(item))
            return
        item = self._items[index]
        assert item.done is None, f"{name} follows the end of its item"
        if kind == "output_item.done":
            self._item_done(item, event["item"])
            return
        assert event["item_id"] == item.item["id"]
        base, _, step = kind.rpartition(".")
        if base in PARTS:
            self._part(item, *PARTS[base], step, event)
        elif base in PIECES:
            self._piece(item, base, step, event)
        else:
            assert base == "output_text.annotation", name
            assert ("content", event["content_index"]) not in item.closed
            integer(event["annotation_index"])

    def _about_all(self, kind: str, response: dict[str, Any]) -> None:
        _response(self.answer, response)
        self._heads.add((response["id"], response["created_at"], response["model"]))
        if kind in ENDS:
            assert response["status"] == kind
            self.end = response
        else:
            assert response["status"] == "in_progress"
            assert not self._items
            assert response["output"] == []

    def _part(self, item: _Item, group: str, place: str, step: str, event: dict[str, Any]) -> None:
        key, part = (group, integer(event[place])), event["part"]
        text = part["refusal" if part["type"] == "refusal" else "text"]
        if step == "added":
            assert key[1] == sum(known[0] == group for known in item.said)
            assert not text
            item.said[key], item.kinds[key] = "", part["type"]
            return
        assert step == "done"
        assert key not in item.closed
        item.closed.add(key)
        assert text == item.said[key]

    def _piece(self, item: _Item, base: str, step: str, event: dict[str, Any]) -> None:
        kind, place, member = PIECES[base]
        assert item.item["type"] == kind
        group = "summary" if place == "summary_index" else "content"
        key = (group, integer(event[place])) if place else "all"
        if place:
            assert key in item.said
            assert item.kinds[key] == PART_KINDS[base]
        assert key not in item.closed
        if base == "output_text":
            assert event["logprobs"] == []
        if step == "delta":
            item.said[key] = item.said.get(key, "") + string(event["delta"])
        else:
            assert step == "done"
            assert event[member] == item.said.get(key, "")
            if base == "function_call_arguments":
                assert event["name"] == item.item["name"]

    def _item_done(self, item: _Item, done: dict[str, Any]) -> None:
        assert done["id"] == item.item["id"]
        assert done["type"] == item.item["type"]
        item.done = done
        for group in ("content", "summary"):
            parts = [part.get("text", part.get("refusal")) for part in done.get(group) or ()]
            said = [text for key, text in item.said.items() if key[0] == group]
            if said or parts:
                assert parts == said
                assert len([key for key in item.closed if key[0] == group]) == len(parts)
        for member in ("arguments", "input"):
            if done["type"].endswith("call") and member in done and "all" in item.said:
                assert done[member] == item.said["all"]

    def close(self) -> Answer:
        """The answer, once all has been read."""
        answer = self.answer
        if answer.error is not None:
            self._before_the_error()
        if self.end is None:
            assert answer.error is not None
            assert self._seen == ["error"] or self._seen[0] == "response.created"
            return answer
        if self._seen[0] != "error":
            assert self._seen[:2] == ["response.created", "response.in_progress"]
            assert len(self._heads) == 1, self._heads
        _final(answer, self.end)
        if answer.error is None:
            assert self.end["output"] == [item.done for item in self._items]
        return answer

    def _before_the_error(self) -> None:
        for item in self._items:
            for key, text in item.said.items():
                match item.kinds.get(key):
                    case "output_text":
                        self.answer.text += text
                    case "refusal":
                        self.answer.refusal += text
                    case "summary_text":
                        self.answer.thought += text


def _response(answer: Answer, response: dict[str, Any]) -> None:
    assert response["object"] == "response"
    integer(response["created_at"])
    answer.id, answer.model = filled(response["id"]), string(response["model"])
    assert isinstance(response["tools"], list)
    assert isinstance(response["tool_choice"], str | dict)
    assert isinstance(response["parallel_tool_calls"], bool)
    for name in _NULLABLE:
        assert name in response


def _final(answer: Answer, response: dict[str, Any]) -> None:
    status = response["status"]
    if status == "failed":
        error = _error(response["error"])
        answer.error = answer.error or error
        filled(error["code"])
        return
    assert response["error"] is None
    ids = [item["id"] for item in response["output"]]
    assert len(set(ids)) == len(ids)
    for item in response["output"]:
        _item(answer, item)
    if status == "incomplete":
        answer.finish = REASONS[response["incomplete_details"]["reason"]]
    else:
        assert response["incomplete_details"] is None
        answer.finish = "tools" if answer.calls else "end"
    if response["usage"] is not None:
        answer.usage = usage(response["usage"])


def _item(answer: Answer, item: dict[str, Any]) -> None:
    match item["type"]:
        case "message":
            assert item["role"] == "assistant"
            assert item["status"] in ("completed", "incomplete")
            for part in item["content"]:
                _content(answer, part)
        case "reasoning":
            for part in item["summary"]:
                assert part["type"] == "summary_text"
                answer.thought += string(part["text"])
            answer.signatures += [s] if (s := item.get("encrypted_content")) else []
        case "function_call" | "custom_tool_call" as kind:
            name = filled(item["name"])
            if "namespace" in item:
                name = f"{item['namespace']}__{name}"
            custom = kind == "custom_tool_call"
            given = item["input"] if custom else arguments(item["arguments"])
            answer.calls.append((filled(item["call_id"]), name, given))
        case "image_generation_call":
            if item.get("result"):  # there is none if the generation failed
                answer.images.append(filled(item["result"]))


def _content(answer: Answer, part: dict[str, Any]) -> None:
    if part["type"] == "refusal":
        answer.refusal += string(part["refusal"])
        return
    assert part["type"] == "output_text"
    answer.text += string(part["text"])
    assert isinstance(part["logprobs"], list)
    for source in part["annotations"]:
        assert source["type"] == "url_citation"
        integer(source["start_index"])
        integer(source["end_index"])
        answer.sources.append(string(source["url"]) or string(source["title"]))


def usage(counts: dict[str, Any]) -> tuple[int, int, int, int]:
    """Read `usage`, whose total is the sum; all details are required."""
    into, out = integer(counts["input_tokens"]), integer(counts["output_tokens"])
    assert counts["total_tokens"] == into + out
    cached = integer(counts["input_tokens_details"]["cached_tokens"])
    integer(counts["input_tokens_details"]["cache_write_tokens"])
    return into, out, cached, integer(counts["output_tokens_details"]["reasoning_tokens"])


def _error(error: dict[str, Any]) -> dict[str, Any]:
    filled(error["message"])
    assert "code" in error
    return error
