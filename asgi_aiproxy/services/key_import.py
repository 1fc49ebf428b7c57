"""Lists of keys as people have them: a key a line."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.keys import Key
from asgi_aiproxy.services.validation import ImportLineError, KeyImportError, parse_body

_MOST = 100_000


def parse_key_lines(
    text: bytes, make: Callable[[Any], Key], there: Set[str], new: type[Any]
) -> dict[str, Key]:
    """The keys of a list by their ids.

    A line is a secret, an id and a secret, or a JSON object with the fields of `new`; empty ones
    and those that begin with `#` are left out. `there` are ids that are taken. Raises
    BadLinesError, which names all lines that are wrong, and APIError if there are no keys.
    """
    keys: dict[str, Key] = {}
    first: dict[str, int] = {}
    bad: list[ImportLineError] = []
    lines = text.split(b"\n")
    if len(lines) > _MOST:
        raise invalid(f"There are more than {_MOST} lines.", "lines")
    for number, raw in enumerate(lines, 1):
        try:
            key = _read(raw, make, new)
        except APIError as error:
            bad.append(ImportLineError(number, error.message.rstrip(".")))
            continue
        if key is None:
            continue
        if key.id in first:
            bad.append(
                ImportLineError(number, f"the id {key.id!r} is that of line {first[key.id]}, too")
            )
        elif key.id in there:
            bad.append(ImportLineError(number, f"there is a key {key.id!r} already"))
        else:
            first[key.id] = number
            keys[key.id] = key
    if bad:
        raise KeyImportError(bad)
    if not keys:
        raise invalid("There is no key in this list.", "lines")
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
        raise invalid("it is more than an id and a secret")
    fields = {"id": words[0], "secret": words[1]} if len(words) == 2 else {"secret": words[0]}
    return make(new(**fields))
