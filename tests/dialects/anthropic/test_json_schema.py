"""The parts of JSON Schema that are sent to Anthropic, and those that are reported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.dialects import _json_schema
from asgi_aiproxy.dialects._claude import json_schema
from tests.support.dialect_requests import openai, written

MODEL = "claude-sonnet-4-5"
BOUND = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How good."},
        "name": {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 5},
    },
    "required": ["score"],
}
BOUND_SENT = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "description": 'How good.\n\n{"minimum":1,"maximum":10}'},
        "name": {"type": "string", "description": '{"minLength":1,"pattern":"^[a-z]+$"}'},
        "tags": {
            "type": "array",
            "items": {"type": "string"},
            "description": '{"minItems":2,"maxItems":5}',
        },
    },
    "required": ["score"],
    "additionalProperties": False,
}
BOUND_LOST = ("minimum", "maximum", "minLength", "pattern", "minItems", "maxItems")
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        }
    },
    "$ref": "#/$defs/node",
}


def response_format(schema: Any) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def tool(schema: Any, *, strict: bool) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}}]


def test_bounds_of_an_answers_schema_move_into_descriptions_and_are_reported() -> None:
    draft = written("anthropic", openai(response_format=response_format(BOUND)), MODEL)
    sent = {"type": "json_schema", "schema": BOUND_SENT}
    assert draft.body["output_config"] == {"format": sent}
    assert draft.ignored == tuple(f"response_format.json_schema.schema.{n}" for n in BOUND_LOST)


def test_bounds_of_a_strict_tool_move_into_descriptions_and_are_reported() -> None:
    draft = written("anthropic", openai(tools=tool(BOUND, strict=True)), MODEL)
    assert draft.body["tools"] == [{"name": "f", "strict": True, "input_schema": BOUND_SENT}]
    assert draft.ignored == tuple(f"tools[].function.parameters.{n}" for n in BOUND_LOST)


def test_an_ordinary_tool_keeps_its_bounds() -> None:
    draft = written("anthropic", openai(tools=tool(BOUND, strict=False)), MODEL)
    assert draft.body["tools"] == [{"name": "f", "input_schema": BOUND}]
    assert draft.ignored == ()


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"type": "object", "properties": {"self": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"items": {"$ref": "#/properties/a"}}}},
        {"type": "object", "properties": {"a": {"$ref": "https://a.example/schema.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
    ],
)
def test_a_schema_outside_the_subset_is_not_sent_as_strict_and_is_reported(schema: Any) -> None:
    assert json_schema.strict(schema) is None
    draft = written("anthropic", openai(response_format=response_format(schema)), MODEL)
    assert "output_config" not in draft.body
    assert draft.ignored == ("response_format",)
    draft = written("anthropic", openai(tools=tool(schema, strict=True)), MODEL)
    assert "strict" not in draft.body["tools"][0]
    assert draft.ignored[0] == "tools[].function.strict"


@pytest.mark.parametrize(
    ("schema", "sent", "lost"),
    [
        ({"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}, ()),
        (
            {"type": "string", "format": "phone"},
            {"type": "string", "description": '{"format":"phone"}'},
            ("format",),
        ),
        (
            {"type": "array", "items": {}, "minItems": 1},
            {"type": "array", "items": {}, "minItems": 1},
            (),
        ),
        ({"enum": ["a", 1, None]}, {"enum": ["a", 1, None]}, ()),
        ({"enum": [{"a": 1}]}, {"description": '{"enum":[{"a":1}]}'}, ("enum",)),
        # objects are closed; one that was to be open is reported
        ({"type": "object"}, {"type": "object", "additionalProperties": False}, ()),
        (
            {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
            {
                "type": "object",
                "properties": {},
                "additionalProperties": False,
                "description": '{"additionalProperties":{"type":"string"}}',
            },
            ("additionalProperties",),
        ),
        # one of several
        (
            {"oneOf": [{"type": "null"}, {"type": "integer", "multipleOf": 5}]},
            {"anyOf": [{"type": "null"}, {"type": "integer", "description": '{"multipleOf":5}'}]},
            ("multipleOf",),
        ),
        # references stand alone
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
            {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "string"}}},
            (),
        ),
        (
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "definitions": {"a": {"type": "object", "title": "A"}},
                "type": "object",
                "properties": {
                    "one": {"$ref": "#/definitions/a"},
                    "two": {"allOf": [{"$ref": "#/definitions/a"}], "description": "Two."},
                    "three": {"$ref": "#/definitions/a", "type": "object", "minProperties": 1},
                },
            },
            {
                "definitions": {
                    "a": {"type": "object", "title": "A", "additionalProperties": False}
                },
                "type": "object",
                "properties": {
                    "one": {"$ref": "#/definitions/a"},
                    "two": {"anyOf": [{"$ref": "#/definitions/a"}], "description": "Two."},
                    "three": {
                        "anyOf": [{"$ref": "#/definitions/a"}],
                        "description": '{"type":"object","minProperties":1}',
                    },
                },
                "additionalProperties": False,
            },
            ("type", "minProperties"),
        ),
        # notes are no loss
        (
            {"type": "string", "examples": ["a"]},
            {"type": "string", "description": '{"examples":["a"]}'},
            (),
        ),
        # a property may have any name
        (
            {"type": "object", "properties": {"minimum": {"type": "integer"}}},
            {
                "type": "object",
                "properties": {"minimum": {"type": "integer"}},
                "additionalProperties": False,
            },
            (),
        ),
    ],
)
def test_a_schema_is_adapted_to_the_subset(schema: Any, sent: Any, lost: tuple[str, ...]) -> None:
    assert json_schema.strict(schema) == (sent, lost)


def test_a_choice_at_the_top_of_a_tools_schema_becomes_its_properties() -> None:
    either = {
        "anyOf": [
            {"properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    }
    draft = written("anthropic", openai(tools=tool(either, strict=False)), MODEL)
    assert draft.body["tools"][0]["input_schema"] == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "description": json.dumps(either, separators=(",", ":")),
    }
    assert draft.ignored == ("tools[].function.parameters.anyOf",)


# ── schemas of any kind ──────────────────────────────────────────────────────

ALLOWED = {"type", "properties", "required", "items", "anyOf", "$ref", "$defs", "definitions"} | {
    "title",
    "description",
    "default",
    "enum",
    "const",
    "format",
    "minItems",
    "additionalProperties",
}


def schemas() -> st.SearchStrategy[Any]:
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": st.sampled_from(["string", "integer", "number", "object", "array", "null"]),
        "minimum": st.integers(),
        "maxLength": st.integers(0, 9),
        "pattern": st.just("^a"),
        "format": st.sampled_from(["email", "regex"]),
        "enum": st.lists(st.one_of(st.integers(), st.just({"a": 1})), min_size=1, max_size=2),
        "minItems": st.integers(0, 3),
        "uniqueItems": st.booleans(),
        "description": st.text(max_size=5),
        "additionalProperties": st.booleans(),
        "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b", "#"]),
    }

    def within(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=2)
        named = st.dictionaries(st.sampled_from(["a", "b", "minimum", "$ref"]), inner, max_size=2)
        nested = {"items": inner, "properties": named, "anyOf": some, "oneOf": some, "not": inner}
        more = {"allOf": some, "prefixItems": some, "$defs": named, "patternProperties": named}
        return st.fixed_dictionaries({}, optional={**keywords, **nested, **more})

    return st.recursive(st.fixed_dictionaries({}, optional=keywords), within, max_leaves=8)


def nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(schema, Mapping):
        return
    yield schema
    for name in ("properties", "$defs", "definitions"):
        for member in schema.get(name, {}).values():
            yield from nodes(member)
    for member in schema.get("anyOf", ()):
        yield from nodes(member)
    yield from nodes(schema.get("items"))


@given(schemas())
@settings(max_examples=400, deadline=None)
def test_adapted_schemas_are_within_the_subset_and_stable(schema: Any) -> None:
    found = json_schema.strict(schema)
    if found is None:
        return
    sent, lost = found
    for node in nodes(sent):
        assert set(node) <= ALLOWED
        assert node.get("additionalProperties", False) is False
        assert "$ref" not in node or len(node) == 1
        assert node.get("minItems", 0) in (0, 1)
        assert node.get("type") != "object" or "additionalProperties" in node
    assert not _json_schema.recursive(sent)
    assert json_schema.strict(sent) == (sent, ())
    if not lost:
        return
    text = json.dumps(sent)
    assert all(name in text for name in lost)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_recursion_is_found_through_any_number_of_references(edges: list[tuple[int, int]]) -> None:
    reached = {(a, b) for a, b in edges}
    for _ in range(6):
        reached |= {(a, d) for a, b in reached for c, d in reached if b == c}
    refs: dict[int, list[Any]] = {n: [] for n in range(6)}
    for a, b in edges:
        refs[a].append({"$ref": f"#/$defs/{b}"})
    schema = {"$defs": {str(n): {"anyOf": members} for n, members in refs.items()}}
    assert _json_schema.recursive(schema) is any(a == b for a, b in reached)


def test_a_long_chain_of_references_is_resolved() -> None:
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(5000)}
    schema = {"$defs": {**chain, "5000": {"type": "string"}}, "$ref": "#/$defs/0"}
    assert json_schema.strict(schema) is not None
    chain["4999"] = {"$ref": "#/$defs/0"}
    assert json_schema.strict({"$defs": chain}) is None


@pytest.mark.parametrize("depth", [50, 300, 450])
def test_a_deep_schema_is_sent_or_reported(depth: int) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    draft = written("anthropic", openai(response_format=response_format(schema)), MODEL)
    assert ("output_config" in draft.body) is (draft.ignored == ())
    draft = written("anthropic", openai(tools=tool(schema, strict=True)), MODEL)
    assert ("strict" in draft.body["tools"][0]) is (draft.ignored == ())
