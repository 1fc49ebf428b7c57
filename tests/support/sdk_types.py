"""What official SDKs declare of requests, as strict validators of JSON.

The SDKs only help to write requests: at run time they pass on members that they do not know, and
values of a wrong type. `misfit` enforces what they declare: an unknown member is refused, as is a
value of a wrong type, and a missing member that is required. It reads

- TypedDicts (of OpenAI, Anthropic, Groq, Cerebras, Perplexity and Mistral),
- pydantic models (of Google, Cohere and Ollama), by the names that they have in JSON,
- signatures of methods whose parameters are the members of a body (Cohere), with `of_method`,
- shapes of Amazon's service descriptions, with `misfit_of_shape`.

An SDK lists what its vendor serves, so a vendor's new member is known after the next update of the
locked versions, and one that was removed is found by it.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any, Literal, Union

import typing_extensions
from pydantic import BaseModel

_SCALARS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    type(None): (type(None),),
}


_FILES = (typing.IO, os.PathLike)  # which SDKs read


class Members(dict[str, tuple[Any, bool]]):
    """The members of an object: their types, and whether they are required."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)  # as types are, of which it is one


def misfit(value: Any, kind: Any, where: str = "") -> str:
    """Where JSON does not fit the type of an SDK, and why; empty if it fits."""
    if isinstance(kind, Members):
        return _object(value, kind, where)
    kind = plain_type(kind)
    if kind in (Any, object):
        return ""
    if kind in _SCALARS:
        return _scalar(value, _SCALARS[kind], where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _FILES or kind in _FILES:
        return f"{where}: {value!r} is not a file"
    if origin in (Union, types.UnionType):
        return _union(value, arguments, where)
    if origin is Literal:
        return "" if value in arguments else f"{where}: {value!r} is not one of {arguments}"
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(value, arguments[1] if arguments else Any, where)
    if origin is not None and issubclass(origin, Iterable):
        return _list(value, arguments[0] if arguments else Any, where)
    if getattr(kind, "__name__", "") == "UnrecognizedStr":  # Mistral's, for future answers
        return f"{where}: {value!r} is not known"
    if not isinstance(kind, type):
        raise TypeError(f"{where}: a type of an SDK that is not supported: {kind!r}")
    if issubclass(kind, Enum):
        words = [each.value for each in kind]
        known = value in words or str(value).upper() in words  # Google reads them in any case
        return "" if known else f"{where}: {value!r} is not one of {words}"
    if kind is bytes:
        return _base64(value, where)
    if kind in (dict, list):
        return "" if isinstance(value, kind) else f"{where}: {value!r} is not a {kind.__name__}"
    return _object(value, members_of(kind), where)


def of_method(method: Callable[..., Any], *left_out: str) -> Members:
    """The members of the body that a method of an SDK writes from its parameters."""
    hints = typing.get_type_hints(method)
    parameters = inspect.signature(method).parameters.values()
    return Members(
        {
            each.name: (hints[each.name], each.default is inspect.Parameter.empty)
            for each in parameters
            if each.name not in ("self", *left_out)
        }
    )


def misfit_of_shape(value: Any, shape: Any, where: str = "") -> str:
    """Where JSON does not fit a shape of Amazon's, and why; empty if it fits."""
    match shape.type_name:
        case "structure" if getattr(shape, "is_document_type", False):
            return ""
        case "structure":
            problem = _shaped_object(value, shape, where)
        case "list":
            problem = (
                _first(
                    misfit_of_shape(each, shape.member, f"{where}[{index}]")
                    for index, each in enumerate(value)
                )
                if isinstance(value, list)
                else f"{where}: {value!r} is not a list"
            )
        case "map":
            problem = (
                _first(
                    misfit_of_shape(each, shape.value, f"{where}.{name}")
                    for name, each in value.items()
                )
                if isinstance(value, dict)
                else f"{where}: {value!r} is not an object"
            )
        case "blob":
            return _base64(value, where)
        case "string" if shape.enum and value not in shape.enum:
            return f"{where}: {value!r} is not one of {shape.enum}"
        case name:
            kinds = {"string": str, "boolean": bool, "float": float, "double": float}
            return _scalar(value, _SCALARS[kinds.get(name, int)], where)
    return problem


def _scalar(value: Any, kinds: tuple[type, ...], where: str) -> str:
    if isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds):
        return ""
    return f"{where}: {value!r} is not {' or '.join(kind.__name__ for kind in kinds)}"


def _base64(value: Any, where: str) -> str:
    try:
        base64.b64decode(value, altchars=b"-_" if {"-", "_"} & {*value} else None, validate=True)
    except (TypeError, binascii.Error):
        return f"{where}: {value!r} is not base64"
    return ""


def _object(value: Any, members: Members, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where}: {value!r} is not an object"
    for name in value:
        if name not in members:
            return f"{where}.{name}: unknown member"
    for name, (_, required) in members.items():
        if required and name not in value:
            return f"{where}.{name}: missing member"
    return _first(misfit(each, members[name][0], f"{where}.{name}") for name, each in value.items())


def _union(value: Any, kinds: tuple[Any, ...], where: str) -> str:
    problems = [misfit(value, kind, where) for kind in kinds]
    if not all(problems):
        return ""
    # The kind that fits best is the one with the deepest problem.
    return max(problems, key=lambda problem: problem.partition(": ")[0].count("."))


def _mapping(value: Any, kind: Any, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where}: {value!r} is not an object"
    return _first(misfit(each, kind, f"{where}.{name}") for name, each in value.items())


def _list(value: Any, kind: Any, where: str) -> str:
    if not isinstance(value, list):
        return f"{where}: {value!r} is not a list"
    return _first(misfit(each, kind, f"{where}[{index}]") for index, each in enumerate(value))


def _shaped_object(value: Any, shape: Any, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where}: {value!r} is not an object"
    names = {member.serialization.get("name", name): name for name, member in shape.members.items()}
    for name in value:
        if name not in names:
            return f"{where}.{name}: unknown member"
    for name in shape.required_members:
        if name not in value and shape.members[name].serialization.get("location") != "uri":
            return f"{where}.{name}: missing member"
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        return f"{where}: {sorted(value)} are members of a union, which has one"
    return _first(
        misfit_of_shape(each, shape.members[names[name]], f"{where}.{name}")
        for name, each in value.items()
    )


def _first(problems: Iterator[str]) -> str:
    return next((problem for problem in problems if problem), "")


@cache
def members_of(kind: type) -> Members:
    """The members of a TypedDict or of a pydantic model."""
    if typing_extensions.is_typeddict(kind):
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        return Members({name: _declared(kind, name, hint) for name, hint in hints.items()})
    if issubclass(kind, BaseModel):
        return Members(
            {
                _json_name(name, field): (field.annotation, field.is_required())
                for name, field in kind.model_fields.items()
            }
        )
    raise TypeError(f"a type of an SDK that is not supported: {kind!r}")


def _json_name(name: str, field: Any) -> str:
    """The name of a field in JSON: pydantic's alias, or one in the SDK's own annotation."""
    own = [alias for each in field.metadata if (alias := getattr(each, "alias", None))]
    return str(field.serialization_alias or field.alias or (own[0] if own else name))


def _declared(kind: type, name: str, hint: Any) -> tuple[Any, bool]:
    required = name in getattr(kind, "__required_keys__", ())
    while (origin := typing_extensions.get_origin(hint)) in _QUALIFIERS:
        if origin in _REQUIRED:
            required = True
        elif origin in _NOT_REQUIRED:
            required = False
        hint = typing_extensions.get_args(hint)[0]
    return hint, required


_REQUIRED = (typing.Required, typing_extensions.Required)
_NOT_REQUIRED = (typing.NotRequired, typing_extensions.NotRequired)
_QUALIFIERS = (*_REQUIRED, *_NOT_REQUIRED, typing_extensions.ReadOnly)


def plain_type(hint: Any) -> Any:
    """A type without annotations and names of its own."""
    while True:
        origin, arguments = typing_extensions.get_origin(hint), typing_extensions.get_args(hint)
        if origin is typing_extensions.Annotated:
            hint = arguments[0]
        elif isinstance(origin, typing_extensions.TypeAliasType):
            hint = origin.__value__[arguments]
        elif isinstance(hint, typing_extensions.TypeAliasType):
            hint = hint.__value__
        else:
            return hint
