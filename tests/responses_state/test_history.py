"""Histories of conversations: what is expanded, for whom, and what is remembered."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.responses_state.history import (
    History,
    Segment,
    expanded_input,
    input_items,
    output_items,
    reasoning_origin,
)
from asgi_aiproxy.responses_state.memory import ConnectionMemory

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=9), JSON, max_size=4), max_size=4)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def fields(value: Any) -> dict[str, msgspec.Raw]:
    return {"input": raw(value)}


def expand(history: History, *items: Any, **options: Any) -> Any:
    options = {"native": False, "reader": "", "limit": 10**6, **options}
    return json.loads(bytes(expanded_input(history, map(raw, items), **options)))


def history(*segments: tuple[list[Any], str]) -> History:
    found = tuple(Segment(tuple(map(raw, items)), origin) for items, origin in segments)
    return History("p", segments=found)


@given(OBJECTS, OBJECTS)
def test_a_history_and_the_new_items_are_one_input_in_order(
    before: list[Any], items: list[Any]
) -> None:
    assert expand(history((before, "")), *items) == before + items


@given(JSON)
def test_any_input_is_items_or_an_error_that_names_it(value: Any) -> None:
    if not isinstance(value, str | list | None):
        with pytest.raises(APIError) as caught:
            input_items(fields(value))
        assert (caught.value.status, caught.value.param) == (400, "input")
        return
    found = [json.loads(bytes(item)) for item in input_items(fields(value))]
    if isinstance(value, list):
        assert found == value


@given(JSON)
def test_any_output_is_items(value: Any) -> None:
    for item in output_items({"output": value}):
        assert isinstance(json.loads(bytes(item)), dict)


def test_a_string_is_a_message_of_the_user() -> None:
    (item,) = input_items(fields("Hi"))
    content = [{"type": "input_text", "text": "Hi"}]
    assert json.loads(bytes(item)) == {"type": "message", "role": "user", "content": content}


def test_items_of_a_response_lose_the_ids_by_which_they_would_be_looked_up() -> None:
    output = [
        {"type": "message", "id": "msg_1", "status": "completed", "content": []},
        {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ]
    found = [json.loads(bytes(item)) for item in output_items({"output": output})]
    assert [item.get("id") for item in found] == [None, None, None, "rs_2", "ws_1"]
    assert found[1]["call_id"] == "c"


MINE = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}
CARRIER = {"type": "reasoning", "summary": [], "encrypted_content": "anthropic.signature:abc"}
PLAIN = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
TEXT = {"type": "message", "role": "user", "content": 'about "reasoning"'}


def test_reasoning_reaches_only_the_account_that_encrypted_it() -> None:
    found = history(([MINE, TEXT], "a/1"), ([MINE], "b/2"), ([CARRIER, PLAIN], "c/3"))
    everything = [MINE, TEXT, MINE, CARRIER, PLAIN]
    assert expand(found) == everything  # for translation, which drops what its vendor cannot read
    assert expand(found, native=True, reader="a/1") == [MINE, TEXT, CARRIER]
    assert expand(found, native=True, reader="b/2") == [TEXT, MINE, CARRIER]
    assert expand(found, native=True) == [TEXT, CARRIER]
    assert expand(history(([MINE], "")), native=True) == [MINE]  # the client's own
    assert expand(found, MINE, native=True)[-1] == MINE


def test_the_last_reasoning_decides_which_account_continues() -> None:
    assert reasoning_origin(history(([MINE], "a/1"), ([MINE], "b/2"), ([TEXT], "c/3"))) == "b/2"
    assert reasoning_origin(history(([CARRIER, PLAIN, TEXT], "a/1"), ([MINE], ""))) == ""


def test_above_the_limit_a_conversation_is_refused() -> None:
    found = history((["x" * 50], ""))
    assert len(expanded_input(found, (), native=False, reader="", limit=54)) == 54
    with pytest.raises(APIError) as caught:
        expanded_input(found, (), native=False, reader="", limit=53)
    assert (caught.value.status, caught.value.code) == (413, "conversation_too_large")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=40))
def test_a_connection_remembers_the_newest_responses_within_its_limit(
    steps: list[tuple[int, int]],
) -> None:
    memory = ConnectionMemory(max_bytes=150)
    order: list[int] = []
    sizes: dict[int, int] = {}
    for name, size in steps:
        memory.put(f"{name}", history((["x" * size], "")))
        order = [*(known for known in order if known != name), name]
        sizes[name] = size + 3
        while len(order) > 1 and sum(sizes[known] for known in order) > 150:
            del sizes[order.pop(0)]
        assert [n for n in range(10) if memory.get(f"{n}") is not None] == sorted(order)


def test_a_response_without_content_is_not_remembered_by_a_connection() -> None:
    memory = ConnectionMemory(max_bytes=150)
    memory.put("a", History("p"))
    assert memory.get("a") is None
