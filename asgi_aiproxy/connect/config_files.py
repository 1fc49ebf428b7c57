"""Merge members into a client's configuration file without disturbing the rest of it.

JSON is parsed, merged member by member, and written again. Python reads TOML but does not write
it: there, lines are inserted or replaced in the text, and the result is parsed and compared with
the merged values. Where they differ, or where the file is not what it should be, nothing is
written: the caller gets a `ConfigurationError` that says why.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from asgi_aiproxy.connect.clients import ConfigFile
from asgi_aiproxy.errors import ConfigurationError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*\[")


def merge_config(text: str, file: ConfigFile) -> str:
    """The text of a file with the members of `file` in it.

    Raises ConfigurationError if the text is not understood or cannot be changed with certainty.
    """
    if file.format == "json":
        return _merge_json(text, file)
    return _merge_toml(text, file)


def _merge_json(text: str, file: ConfigFile) -> str:
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise _not_understood(file, f"it is not plain JSON ({error})") from None
    return json.dumps(_merged(found, file.members, file), indent=2, ensure_ascii=False) + "\n"


def _merged(old: Any, new: Mapping[str, Any], file: ConfigFile, where: str = "") -> dict[str, Any]:
    if not isinstance(old, dict):
        raise _not_understood(file, f"{where or 'its content'} is not an object")
    out = dict(old)
    for name, value in new.items():
        if isinstance(value, Mapping):
            place = f"{where}.{name}" if where else name
            out[name] = _merged(old.get(name, {}), value, file, place)
        else:
            out[name] = value
    return out


def _merge_toml(text: str, file: ConfigFile) -> str:
    try:
        wanted = _merged(tomllib.loads(text), file.members, file)
    except tomllib.TOMLDecodeError as error:
        raise _not_understood(file, f"it is not valid TOML ({error})") from None
    lines = text.splitlines()
    _put_table(lines, (), file.members)
    changed = "\n".join(lines).strip("\n") + "\n"
    try:
        found = tomllib.loads(changed)
    except tomllib.TOMLDecodeError:
        found = None
    if found != wanted:
        raise _not_understood(file, "it sets the same values in another way")
    return changed


def _put_table(lines: list[str], path: tuple[str, ...], members: Mapping[str, Any]) -> None:
    """Set the members of one table, and of the tables in it."""
    plain = {name: value for name, value in members.items() if not isinstance(value, Mapping)}
    if plain:
        start = _start_of(lines, path)
        for name, value in plain.items():
            line = f"{_key(name)} = {_value(value)}"
            at = _line_of(lines, start, name)
            if at is None:
                lines.insert(_end_of(lines, start), line)
            else:
                lines[at] = line
    for name, value in members.items():
        if isinstance(value, Mapping):
            _put_table(lines, (*path, name), value)


def _start_of(lines: list[str], path: tuple[str, ...]) -> int:
    """The number of the first line of a table, behind its header, which is added if missing."""
    if not path:
        return 0
    header = f"[{'.'.join(map(_key, path))}]"
    for at, line in enumerate(lines):
        if line.partition("#")[0].strip() == header:
            return at + 1
    if lines and lines[-1].strip():
        lines.append("")
    lines.append(header)
    return len(lines)


def _end_of(lines: list[str], start: int) -> int:
    """Where a line can be added to the table that starts here."""
    end = start
    for at in range(start, len(lines)):
        if _HEADER.match(lines[at]):
            break
        if lines[at].strip():
            end = at + 1
    if end == start and start == 0 and lines:
        lines.insert(0, "")
    return end


def _line_of(lines: list[str], start: int, name: str) -> int | None:
    for at in range(start, len(lines)):
        if _HEADER.match(lines[at]):
            return None
        if lines[at].partition("=")[0].strip().strip("\"'") == name:
            return at
    return None


def toml_text(members: Mapping[str, Any]) -> str:
    """Members as TOML."""
    lines: list[str] = []
    _put_table(lines, (), members)
    return "\n".join(lines).strip("\n") + "\n"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _value(value: Any) -> str:
    """A value in one line; tables in it are inline tables."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)  # of strings, numbers and booleans TOML's form


def _not_understood(file: ConfigFile, why: str) -> ConfigurationError:
    return ConfigurationError(f"{file.path} was not changed: {why}. Add the settings by hand.")
