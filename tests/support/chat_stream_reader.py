"""A strict reader of OpenAI chat streams: anything that a client might fail on is an error."""

from __future__ import annotations

import json
from typing import Any

FINISH = {"stop", "length", "tool_calls", "content_filter", "function_call"}


def chunks_in(stream: bytes) -> tuple[list[dict[str, Any]], bool]:
    """The chunks of a stream, and whether it ended with `[DONE]`. Only LF, only `data: `."""
    assert stream.endswith(b"\n\n") or not stream
    found: list[dict[str, Any]] = []
    done = False
    for block in stream.decode().split("\n\n")[:-1]:
        assert not done, "something follows [DONE]"
        assert block.startswith("data: "), block
        assert "\n" not in block, block
        done = block == "data: [DONE]"
        if not done:
            found.append(json.loads(block[6:]))
    return found, done


def read(chunks: list[dict[str, Any]]) -> None:
    """Check chunks against each other and OpenAI's reference."""
    heads = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks}
    assert len(heads) <= 1, heads
    roles: set[int] = set()
    finished: set[int] = set()
    calls: dict[int, int] = {}
    for chunk in chunks:
        assert isinstance(chunk["id"], str)
        assert chunk["object"] == "chat.completion.chunk"
        assert type(chunk["created"]) is int
        assert isinstance(chunk["model"], str)
        assert isinstance(chunk["choices"], list)
        assert not (chunk.get("usage") and chunk["choices"]), "usage has a chunk of its own"
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert type(index) is int
            assert isinstance(delta, dict)
            assert index not in finished, "a choice continues after its end"
            assert delta.get("role") == (None if index in roles else "assistant")
            roles.add(index)
            for name in ("content", "refusal"):
                assert isinstance(delta.get(name), str | None)
            for call in delta.get("tool_calls", ()):
                _fragment(call, calls, index)
            if choice["finish_reason"] is not None:
                assert choice["finish_reason"] in FINISH
                finished.add(index)


def _fragment(call: dict[str, Any], calls: dict[int, int], choice: int) -> None:
    known = calls.setdefault(choice, 0)
    part = call.get("function") or call["custom"]
    text = part["arguments"] if "function" in call else part["input"]
    assert type(call["index"]) is int
    assert isinstance(text, str)
    if call["index"] == known:
        assert isinstance(call["id"], str)
        assert call["id"]
        assert call["type"] in ("function", "custom")
        assert isinstance(part["name"], str)
        assert part["name"]
        calls[choice] += 1
    else:
        assert 0 <= call["index"] < known
        assert "id" not in call
        assert "name" not in part
