"""Values that the types of an official SDK allow, as JSON: enough of them for each choice to occur.

`samples` reads pydantic models, `shape_samples` Amazon's service descriptions. The first sample of
an object has all members, the second only those that are required; the others replace one member of
the first by each further value that its type allows: another alternative of a union, another word
of an enumeration, an empty list. Deeper than `_CHOICE_DEPTH` members only have their first value,
and types within themselves end at `_MAX_DEPTH`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, Union

from pydantic import BaseModel

from tests.support.sdk_types import Members, members_of, plain_type

_CHOICE_DEPTH, _MAX_DEPTH = 3, 8
_SCALARS: dict[Any, Any] = {str: "text", int: 3, float: 0.5, bool: True, type(None): None}


def alternatives(kind: Any) -> list[type]:
    """The members of a union, and of the unions in it."""
    kind = plain_type(kind)
    if typing.get_origin(kind) in (Union, types.UnionType):
        return [found for each in typing.get_args(kind) for found in alternatives(each)]
    return [kind]


def samples(kind: Any, depth: int = 0) -> list[Any]:
    """Values of a type, without those that are equal. Raises TypeError for one not supported."""
    return _distinct(_samples(plain_type(kind), depth), depth)


def _samples(kind: Any, depth: int) -> Iterator[Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        yield {"x": 1}
    elif isinstance(kind, Members):
        yield from _of_members(kind, depth)
    elif kind in _SCALARS:
        yield _SCALARS[kind]
    elif origin in (Union, types.UnionType):
        for each in sorted(arguments, key=lambda a: a is type(None)):
            yield from samples(each, depth)
    elif origin is Literal:
        yield from arguments
    elif origin is not None and issubclass(origin, Mapping):
        yield {"x": samples(arguments[1], depth)[0]} if arguments else {"x": 1}
    elif origin is not None and issubclass(origin, Iterable):
        if depth < _MAX_DEPTH:
            yield from ([each] for each in samples(arguments[0], depth + 1))
        yield []
    elif issubclass(kind, Enum):
        yield from (each.value for each in kind)
    elif issubclass(kind, dict):
        yield {"x": 1}
    elif issubclass(kind, BaseModel):
        yield from _of_members(members_of(kind), depth)
    else:
        raise TypeError(f"a type of an SDK that is not supported: {kind!r}")


def _of_members(members: Members, depth: int) -> Iterator[Any]:
    values = {name: samples(kind, depth + 1) for name, (kind, _) in members.items()}
    required = {name for name, (kind, needed) in members.items() if needed or _is_tag(kind)}
    yield from _objects(values, required)


def _is_tag(kind: Any) -> bool:
    """Whether a member says of which type its object is: SDKs have a default for it."""
    return typing.get_origin(plain_type(kind)) is Literal and len(typing.get_args(kind)) == 1


def shape_samples(shape: Any, depth: int = 0) -> list[Any]:
    """Values of a shape of Amazon's."""
    return _distinct(_shape_samples(shape, depth), depth)


def _shape_samples(shape: Any, depth: int) -> Iterator[Any]:
    match shape.type_name:
        case "structure" if getattr(shape, "is_document_type", False):
            yield {"x": 1}
        case "structure":
            if depth >= _MAX_DEPTH:
                return
            values = {
                member.serialization.get("name", name): found
                for name, member in shape.members.items()
                if (found := shape_samples(member, depth + 1))
            }
            if getattr(shape, "is_tagged_union", False):
                yield from ({name: each} for name, found in values.items() for each in found)
            else:
                yield from _objects(values, set(shape.required_members))
        case "list":
            yield from ([each] for each in shape_samples(shape.member, depth + 1))
            yield []
        case "map":
            yield {"x": next(iter(shape_samples(shape.value, depth + 1)), None)}
        case "blob":
            yield "eA=="
        case "string":
            yield from shape.enum or ("text",)
        case "boolean":
            yield True
        case name:
            yield 0.5 if name in ("float", "double") else 3


def _objects(values: Mapping[str, list[Any]], required: set[str]) -> Iterator[dict[str, Any]]:
    full = {name: found[0] for name, found in values.items()}
    yield full
    yield {name: value for name, value in full.items() if name in required}
    for name, found in values.items():
        yield from ({**full, name: value} for value in found[1:])


def _distinct(found: Iterable[Any], depth: int) -> list[Any]:
    out: list[Any] = []
    for value in found:
        if value not in out:
            out.append(value)
        if depth > _CHOICE_DEPTH:
            break
    return out
