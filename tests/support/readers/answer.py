"""What an answer says, in terms of no API; and event streams cut by the letter of the standard."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """The meaning of an answer. `finish` is one of end, length, tools, filter, other."""

    id: str = ""
    model: str = ""
    text: str = ""
    thought: str = ""
    refusal: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)  # id, name, arguments
    sources: list[str] = field(default_factory=list)  # URLs or titles of citations
    images: list[str] = field(default_factory=list)  # base64
    signatures: list[str] = field(default_factory=list)
    finish: str = ""
    usage: tuple[int, int, int, int] | None = None  # input, output, cache reads, reasoning
    error: dict[str, Any] | None = None  # as the API writes it: without its envelope

    @property
    def said(self) -> str:
        """All visible words; some APIs do not set refusals apart."""
        return self.text + self.refusal


def events(data: bytes) -> list[tuple[str, str]]:
    """Type and data of each event. Line ends are LF, and the last event is complete."""
    text = data.decode()
    assert "\r" not in text
    assert not text or text.endswith("\n\n")
    found: list[tuple[str, str]] = []
    for block in text.split("\n\n")[:-1]:
        name, content = "", []
        for line in block.split("\n"):
            field_name, colon, value = line.partition(": ")
            assert colon, f"no field: {line!r}"
            if field_name == "event":
                assert not name
                assert not content, "the type comes before the data"
                name = value
            else:
                assert field_name == "data", line
                content.append(value)
        assert len(content) == 1, block
        found.append((name, content[0]))
    return found


def arguments(text: str) -> Any:
    """Arguments as the object they must be, or as they are if a model was cut off in them."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def integer(value: Any) -> int:
    """An integer that is not a bool."""
    assert type(value) is int, value
    return value


def string(value: Any) -> str:
    """A string."""
    assert isinstance(value, str), value
    return value


def filled(value: Any) -> str:
    """A string that is not empty."""
    assert string(value)
    return str(value)
