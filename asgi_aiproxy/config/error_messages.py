"""Messages for invalid settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from asgi_aiproxy.config.providers import toml_path


def describe_errors(
    error: ValidationError,
    path: object,
    variables: Mapping[str, Any],
    names_at: Callable[[Sequence[str | int]], list[str]],
) -> str:
    """The message of a validation error, one line for each mistake: source, place, what is wrong.

    `path` is the configuration file, `variables` are the values that came from the environment.
    `names_at` lists the settings that are allowed at a place.
    """
    lines = []
    for mistake in error.errors(include_url=False, include_input=False):
        message = mistake["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "must be")
        message = _MESSAGES.get(mistake["type"], message)
        if mistake["type"] == "extra_forbidden":
            message += did_you_mean(str(mistake["loc"][-1]), names_at(mistake["loc"][:-1]))
        message = _MESSAGES_AT.get((mistake["type"], mistake["loc"]), message)
        from_variable = path is None or _contains(variables, mistake["loc"])
        source = "environment" if from_variable else path
        line = f"{source}: {toml_path(mistake['loc'])}: {message}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion of the known name that is meant by `name`; empty if none is close."""
    names = list(known)
    meant = _OTHER_NAMES.get(name.lower(), "")
    found = [meant] if meant in names else difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


_MESSAGES = {
    "extra_forbidden": "unknown setting",
    "missing": "is missing",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "list_type": 'must be a list, like ["..."]',
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "int_parsing": "must be an integer",
    "int_type": "must be an integer",
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
