"""Write a complete response as the events of its stream. Pure.

Each text and each call is one delta. What comes with a stream only, such as its timing, is not
kept. https://platform.openai.com/docs/api-reference/responses/get
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.framing import encode_frame

_FINAL = frozenset({"completed", "incomplete", "failed"})
_Event = tuple[str, dict[str, Any]]


def stream_of(response: dict[str, Any], starting_after: int) -> bytes:
    """The events of a response after the one with the number `starting_after`; -1 for all."""
    out = []
    for number, (kind, members) in enumerate(_events(response)):
        if number > starting_after:
            event = {"type": kind, "sequence_number": number, **members}
            out.append(encode_frame(_json.dumps(event), kind.encode()))
    return b"".join(out)


def _events(response: dict[str, Any]) -> Iterator[_Event]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "error": None}
    begun["incomplete_details"] = None
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    output = response.get("output")
    for index, item in enumerate(output if isinstance(output, list) else ()):
        if isinstance(item, dict):
            yield from _item(item, index)
    status = response.get("status")
    kind = status if status in _FINAL else "completed"
    yield f"response.{kind}", {"response": response}


def _item(item: dict[str, Any], index: int) -> Iterator[_Event]:
    place = {"item_id": item.get("id") or "", "output_index": index}
    opening, deltas = item, list[_Event]()
    match item:
        case {"type": "message", "content": list(parts)}:
            opening = {**item, "status": "in_progress", "content": []}
            for number, part in enumerate(parts):
                deltas += _part({**place, "content_index": number}, part)
        case {"type": "reasoning", "summary": list(parts)}:
            opening = {**item, "summary": []}
            for number, part in enumerate(parts):
                deltas += _summary({**place, "summary_index": number}, part)
        case {"type": "function_call", "arguments": str(text)}:
            opening = {**item, "status": "in_progress", "arguments": ""}
            done = {"name": item.get("name") or "", "arguments": text}
            deltas += _delta("function_call_arguments", place, text, done)
        case {"type": "custom_tool_call", "input": str(text)}:
            opening = {**item, "status": "in_progress", "input": ""}
            deltas += _delta("custom_tool_call_input", place, text, {"input": text})
    yield "response.output_item.added", {"output_index": index, "item": opening}
    yield from deltas
    yield "response.output_item.done", {"output_index": index, "item": item}


def _delta(
    kind: str, place: dict[str, Any], text: str, done: dict[str, Any], **more: Any
) -> Iterator[_Event]:
    if text:
        yield f"response.{kind}.delta", {**place, "delta": text, **more}
    yield f"response.{kind}.done", {**place, **done, **more}


def _part(place: dict[str, Any], part: dict[str, Any]) -> Iterator[_Event]:
    """The events of one part of a message."""
    empty = {**part}
    inner = list[_Event]()
    match part:
        case {"type": "output_text", "text": str(text)}:
            empty |= {"text": "", "annotations": []}
            inner += _delta("output_text", place, text, {"text": text}, logprobs=[])
            for number, annotation in enumerate(part.get("annotations") or ()):
                added = {"annotation_index": number, "annotation": annotation}
                inner.append(("response.output_text.annotation.added", {**place, **added}))
        case {"type": "refusal", "refusal": str(text)}:
            empty |= {"refusal": ""}
            inner += _delta("refusal", place, text, {"refusal": text})
    yield "response.content_part.added", {**place, "part": empty}
    yield from inner
    yield "response.content_part.done", {**place, "part": part}


def _summary(place: dict[str, Any], part: dict[str, Any]) -> Iterator[_Event]:
    text = str(part.get("text") or "")
    yield "response.reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}
    yield from _delta("reasoning_summary_text", place, text, {"text": text})
    yield "response.reasoning_summary_part.done", {**place, "part": part}
