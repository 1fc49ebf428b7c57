"""Messages for invalid settings."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from pydantic import BaseModel, ValidationError

from asgi_aiproxy.errors import ConfigurationError

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

# A message lists the settings that are allowed at a place if there are no more than these.
_MAX_LISTED = 20


def describe_errors(
    error: ValidationError, path: object, variables: Mapping[str, Any], settings: type[BaseModel]
) -> str:
    """The message of a validation error, one line for each mistake: source, place, what is wrong.

    `path` is the configuration file, `variables` are the values that came from the environment,
    `settings` is the model that was validated.
    """
    lines = []
    for mistake in error.errors(include_url=False, include_input=False):
        message = mistake["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "must be")
        message = _MESSAGES.get(mistake["type"], message)
        if mistake["type"] == "extra_forbidden":
            *place, name = mistake["loc"]
            message = _unknown_setting(str(name), _names_at(settings, place))
        message = _MESSAGES_AT.get((mistake["type"], mistake["loc"]), message)
        from_variable = path is None or _contains(variables, mistake["loc"])
        source = "environment" if from_variable else path
        line = f"{source}: {toml_path(mistake['loc'])}: {message}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def toml_path(steps: Sequence[str | int]) -> str:
    """The path of a setting as a TOML file would spell it."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." + (step if re.fullmatch(r"[\w-]+", step) else f'"{step}"')
    return text.removeprefix(".")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion of the known name that is meant by `name`; empty if none is close."""
    names = list(known)
    meant = _OTHER_NAMES.get(name.lower(), "")
    found = [meant] if meant in names else difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def describe_syntax_error(error: ValueError, text: str) -> str:
    """Why a text is not valid TOML, and a hint if it looks like another format."""
    if re.match(r"\s*\{", text):
        return "it looks like JSON. Write [tables] and name = value"
    if re.match(r"(?:\s*(?:#.*|---)?\n)*[\w-]+:(?:\s|$)", text):
        return "it looks like YAML. Write [tables] and name = value"
    message = str(error)
    if declared := re.match(r"Cannot declare (\(.*\)) twice(.*)", message, re.DOTALL):
        steps = re.findall(r"'((?:[^'\\]|\\.)*)'", declared[1])
        return f"the table [{toml_path(steps)}] is given twice{declared[2]}"
    if isinstance(error, tomllib.TOMLDecodeError) and "Invalid value" in message:
        return f'{message}. Strings are written in quotes: "text"'
    return message


def convert_table(where: str, table: Mapping[str, Any], kind: type[_Struct]) -> _Struct:
    """A table of the configuration as a struct of a `kind`.

    Raises ConfigurationError with the place, `where`.
    """
    for name in table:
        if name not in kind.__struct_fields__:
            message = _unknown_setting(name, kind.__struct_fields__)
            raise ConfigurationError(f"{where}.{name}: {message}.")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        raise ConfigurationError(f"{where}{at.rstrip('`')}: {message}.") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _unknown_setting(name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known)
    if not hint and 0 < len(known) <= _MAX_LISTED:
        hint = f"; there are: {', '.join(known)}"
    return f"unknown setting{hint}"


def _names_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The names of the settings that are allowed at a place; empty if any are."""
    kind: Any = model
    for step in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(step)].annotation
        else:  # a table with free names, or a list
            kind = get_args(kind)[-1]
        while get_origin(kind) not in (None, dict, list):  # Annotated, or a union with None
            kind = get_args(kind)[0]
    return list(getattr(kind, "model_fields", ()))


_MESSAGES = {
    "missing": "is missing",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "list_type": 'must be a list, like ["..."]',
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "int_parsing": "must be an integer",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
}
_MESSAGES_AT: dict[tuple[str, tuple[int | str, ...]], str] = {
    ("list_type", ("tokens",)): "write [[tokens]] (double brackets) before each token",
    ("dict_type", ("providers",)): "write [providers.NAME] before each provider",
    ("dict_type", ("routes",)): 'write [routes], then "model pattern" = ["provider", ...]',
}
# The names that other tools give to settings.
_OTHER_NAMES = dict.fromkeys(("api_key", "api_keys", "apikey", "secrets"), "keys")
_OTHER_NAMES |= dict.fromkeys(("api_base", "url", "endpoint", "host"), "base_url")
_OTHER_NAMES |= dict.fromkeys(("type", "provider", "vendor"), "kind")
_OTHER_NAMES |= dict.fromkeys(("api_key_env", "value"), "secret")


def _contains(data: Any, place: Sequence[str | int]) -> bool:
    """Whether `data` contains a place, or the table in which it is missing."""
    for at, step in enumerate(place):
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return 0 < at == len(place) - 1
    return True
