"""Form fields as the members of a request body: texts, lists, numbers, flags, times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from asgi_aiproxy.errors import invalid

Kind = Literal["text", "list", "lines", "integer", "number", "flag", "time", "choices"]
Form = Mapping[str, list[str]]


def read_form(form: Form, *, edit: bool = False, **kinds: Kind) -> dict[str, Any]:
    """Return the body that a form stands for; `kinds` has the kind of each field.

    An empty field is omitted; with `edit` it is null, which removes a restriction. A field that the
    form does not have is omitted, except a flag, which is false then. Raises APIError, which names
    the field.
    """
    body: dict[str, Any] = {}
    for name, kind in kinds.items():
        if kind == "flag":
            body[name] = "on" in form.get(name, ())
        elif kind == "choices":
            body[name] = [value for value in form.get(name, ()) if value]
        elif name in form:
            text = form[name][-1].strip()
            if text:
                body[name] = _value(name, text, kind)
            elif edit:
                body[name] = None
    return body


def _value(name: str, text: str, kind: Kind) -> Any:
    if kind == "list":
        return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    if kind == "lines":
        return [part.strip() for part in text.splitlines() if part.strip()]
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
        if kind == "time":
            return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError) as error:
        what = {"integer": "an integer", "number": "a number", "time": "a date and time"}[kind]
        raise invalid(f"{name}: must be {what}, got {text!r}.", name) from error
    return text


def time_value(seconds: float | None) -> str:
    """Return a Unix time as the value of a date and time field (UTC)."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M")
