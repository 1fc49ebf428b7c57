"""Import keys from a text with one key per line."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.keys import Key
from asgi_aiproxy.services.validation import ImportLineError, KeyImportError, parse_body

_MAX_LINES = 100_000


def parse_key_lines(
    text: bytes, make: Callable[[Any], Key], existing_ids: Set[str], new: type[Any]
) -> dict[str, Key]:
    """Parse a text with one key per line; returns the keys by their ids.

    A line is a secret, an id and a secret, or a JSON object with the fields of `new`. Empty lines
    and lines that begin with `#` are ignored. `make` builds a key, `there` are ids that exist
    already. Raises KeyImportError, which names all invalid lines, and APIError if there are no
    keys.
    """
    keys: dict[str, Key] = {}
    first_line: dict[str, int] = {}
    invalid_lines: list[ImportLineError] = []
    lines = text.split(b"\n")
    if len(lines) > _MAX_LINES:
        raise invalid(f"The text has more than {_MAX_LINES} lines.", "lines")
    for number, raw in enumerate(lines, 1):
        try:
            key = _read(raw, make, new)
        except APIError as error:
            invalid_lines.append(ImportLineError(number, error.message.rstrip(".")))
            continue
        if key is None:
            continue
        if key.id in first_line:
            invalid_lines.append(
                ImportLineError(
                    number, f"the id {key.id!r} is also used in line {first_line[key.id]}"
                )
            )
        elif key.id in existing_ids:
            invalid_lines.append(ImportLineError(number, f"the key {key.id!r} already exists"))
        else:
            first_line[key.id] = number
            keys[key.id] = key
    if invalid_lines:
        raise KeyImportError(invalid_lines)
    if not keys:
        raise invalid("The list contains no keys.", "lines")
    return keys


def _read(raw: bytes, make: Callable[[Any], Key], new: type[Any]) -> Key | None:
    try:
        line = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise invalid("it is not valid UTF-8") from error
    if not line or line.startswith("#"):
        return None
    if line.startswith("{"):
        return make(parse_body(line.encode(), new))
    words = line.replace(",", " ").split()
    if len(words) > 2:
        raise invalid("expected a secret, or an id and a secret")
    fields = {"id": words[0], "secret": words[1]} if len(words) == 2 else {"secret": words[0]}
    return make(new(**fields))
