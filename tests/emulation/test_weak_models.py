"""Tools for models without: whatever such a model writes, no call reaches a client as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from asgi_aiproxy.emulation import Emulation
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.messages import (
    Event,
    Message,
    Request,
    Response,
    Text,
    Tool,
    ToolCall,
    Usage,
    check,
    fold,
    unfold,
)
from tests.emulation.weak_replies import PARIS, REPLIES

pytestmark = pytest.mark.anyio

WEATHER = Tool(
    name="get_weather",
    schema={
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city"],
    },
)
SEARCH = Tool(
    name="search-docs",
    schema={
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["query"],
    },
)
REQUEST = Request(
    model="m", messages=(Message("user", (Text("Weather?"),)),), tools=(WEATHER, SEARCH)
)
CORRECTED = '1: {"toolId": "get_weather", "arguments": {"city": "Paris"}}'
USAGE = Usage(input=3, output=2)


def reply_events(text: str, size: int) -> list[Event]:
    """A reply as a stream of pieces of `size` characters."""
    whole = Response(id="r", model="m", blocks=(Text(text),), usage=USAGE)
    start, opened, *_, closed, end = unfold(whole)
    delta = type(list(unfold(Response(id="", model="", blocks=(Text("x"),))))[2])
    pieces = [delta(0, text[place : place + size]) for place in range(0, len(text), size)]
    return [start, opened, *pieces, closed, end]


async def run(
    emulation: Emulation, request: Request, replies: Sequence[str], *, size: int = 5
) -> tuple[Response, list[Request]]:
    """What the client is sent, and the requests that the model got."""
    emulated = emulation.apply(request, "ann")
    assert emulated is not None
    sent = [emulated.request if emulated.request is not None else request]
    later = list(replies[1:])

    async def ask(further: Request) -> Response:
        sent.append(further)
        return Response(id="x", model="m", blocks=(Text(later.pop(0)),), usage=USAGE)

    each = emulated.make_filter(ask)
    out: list[Event] = []
    for event in reply_events(replies[0], size):
        out += await each.feed(event)
    out += await each.close()
    return fold(check(out)), sent


def calls_of(response: Response) -> list[tuple[str, Any]]:
    return [
        (block.name, json.loads(block.arguments))
        for block in response.blocks
        if isinstance(block, ToolCall)
    ]


def text_of(response: Response) -> str:
    return "".join(block.text for block in response.blocks if isinstance(block, Text))


def words(text: str) -> list[str]:
    return text.split()


async def test_no_call_of_a_weak_model_is_text_and_no_text_is_lost() -> None:
    assert len(REPLIES) > 100
    counted: Counter[str] = Counter()
    for name, reply, calls, text in REPLIES:
        for size in (1, 4, 17, 10_000):
            response, sent = await run(Emulation(), REQUEST, [reply, CORRECTED], size=size)
            expected = [PARIS] if calls is None else calls
            assert calls_of(response) == expected, (name, size)
            lead = "Two lines. Of text. " if ", after an answer of lines" in name else ""
            assert words(text_of(response)) == words(lead + text), (name, size)
            assert response.stop == ("tools" if expected else "end"), name
            assert len(sent) == (2 if calls is None else 1), name
            assert response.usage == Usage(input=3 * len(sent), output=2 * len(sent))
        counted["corrected" if calls is None else "called" if calls else "answered"] += 1
    total = sum(counted.values())
    print(f"{total} replies:", ", ".join(f"{n} {kind}" for kind, n in counted.items()))


async def test_a_second_reply_that_is_invalid_fails_the_request() -> None:
    for name, reply, calls, _ in REPLIES:
        if calls is None:
            with pytest.raises(APIError) as raised:
                await run(Emulation(), REQUEST, [reply, reply])
            assert raised.value.code == "emulation_failed", name
            assert raised.value.status == 502


async def test_a_model_that_has_tools_is_not_changed_but_for_leaked_calls() -> None:
    clear = 0
    for name, reply, calls, _ in REPLIES:
        emulation = Emulation("leaked_calls")
        emulated = emulation.apply(REQUEST, "ann")
        assert emulated is not None
        assert emulated.request is None
        response, sent = await run(emulation, REQUEST, [reply])
        assert len(sent) == 1
        found = calls_of(response)
        if found:
            assert found == calls, name
            clear += 1
        else:
            assert text_of(response) == reply, name
    assert clear > 60
    proper = Response(
        id="r",
        model="m",
        blocks=(Text("Hm. "), ToolCall("c", "f", "{}")),
        stop=fold(unfold(Response(id="", model=""))).stop,
    )
    emulated = Emulation("leaked_calls").apply(REQUEST, "ann")
    assert emulated is not None

    async def never(request: Request) -> Response:
        raise AssertionError

    each = emulated.make_filter(never)
    out: list[Event] = []
    for event in unfold(proper):
        out += await each.feed(event)
    assert fold(out).blocks == proper.blocks
