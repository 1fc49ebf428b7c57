"""Arguments of a call that Google streams in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects.gemini.partial_arguments import PartialArguments


def put_together(*pieces: dict[str, Any]) -> dict[str, Any]:
    partial = PartialArguments()
    for piece in pieces:
        partial.add([piece])
    return partial.value


@pytest.mark.parametrize(
    ("pieces", "value"),
    [
        ([], {}),
        ([{"jsonPath": "$.a", "stringValue": "x"}], {"a": "x"}),
        (
            [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "stringValue": "y"}],
            {"a": "xy"},
        ),
        (
            [{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a", "stringValue": "y"}],
            {"a": "y"},
        ),
        (
            [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "boolValue": False}],
            {"a": False},
        ),
        ([{"jsonPath": "$.a", "nullValue": "NULL_VALUE"}], {"a": None}),
        (
            [{"jsonPath": f"$.a.b[{n}].c", "numberValue": n} for n in range(2)],
            {"a": {"b": [{"c": 0}, {"c": 1}]}},
        ),
        (
            [
                {"jsonPath": "$.a[0][0]", "numberValue": 1},
                {"jsonPath": "$.a[0][1]", "numberValue": 2},
            ],
            {"a": [[1, 2]]},
        ),
        # members come in order, whatever their numbers
        ([{"jsonPath": "$.a[999999999]", "numberValue": 2}], {"a": [2]}),
        (
            [{"jsonPath": "$.a[0]", "numberValue": 2}, {"jsonPath": "$.a.b", "numberValue": 3}],
            {"a": [2, 3]},
        ),
        ([{"jsonPath": "$['a b'].c", "numberValue": 2}], {"a b": {"c": 2}}),
        # parts without content
        ([{"jsonPath": "$", "stringValue": "x"}, {"stringValue": "x"}, {"jsonPath": "$.a"}], {}),
    ],
)
def test_arguments_in_pieces_are_combined(
    pieces: list[dict[str, Any]], value: dict[str, Any]
) -> None:
    assert put_together(*pieces) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", min_size=1, max_size=3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("xyz", min_size=1, max_size=2), inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=2), JSON, max_size=3))
def test_any_arguments_split_into_pieces_are_combined(value: dict[str, Any]) -> None:
    assert put_together(*taken_apart("$", value)) == value


def taken_apart(path: str, value: Any) -> list[dict[str, Any]]:
    match value:
        case dict():
            return [p for k, v in value.items() for p in taken_apart(f"{path}.{k}", v)]
        case list():
            return [p for i, v in enumerate(value) for p in taken_apart(f"{path}[{i}]", v)]
        case str():
            return [{"jsonPath": path, "stringValue": letter} for letter in value]
        case bool():
            return [{"jsonPath": path, "boolValue": value}]
        case None:
            return [{"jsonPath": path, "nullValue": "NULL_VALUE"}]
    return [{"jsonPath": path, "numberValue": value}]
