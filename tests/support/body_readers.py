"""Parsers of JSON and of forms as used by servers, other than this package's own.

Each takes a content type and a body, and returns all models that it would run. Real parsers are
used where available; Go's and others are implemented here as documented.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import io
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import multipart
import python_multipart
from werkzeug.formparser import parse_form_data

Reader = Callable[[str, bytes], set[str]]
# The errors of parsers that give up on a body: then nothing is run.
GAVE_UP = (ValueError, KeyError, IndexError, LookupError, RecursionError, AssertionError)


# ── JSON ─────────────────────────────────────────────────────────────────────


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in pairs:
        out.setdefault(name, value)
    return out


def go_fold(name: str) -> str:
    """Names as compared by Go's `encoding/json` (`strings.EqualFold`)."""
    return name.replace("\u017f", "s").replace("\u212a", "k").lower()


def _caseless(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Go: case-insensitive, the last one counts."""
    return {go_fold(name): value for name, value in pairs}


def _caseless_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """cJSON: the first one counts, and names end at a NUL."""
    return _first([(go_fold(name).partition("\0")[0], value) for name, value in pairs])


def _trimmed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {re.sub(r"\W", "", name).lower(): value for name, value in pairs}


HOOKS = (dict, _first, _caseless, _caseless_first, _trimmed)


def _texts(body: bytes) -> list[str]:
    """The body in all possible encodings, for parsers that guess."""
    found = []
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1"):
        with contextlib.suppress(UnicodeError):
            found.append(body.decode(encoding))
    return found


def json_values(body: bytes) -> list[Any]:
    """The values of a body for JSON parsers: strict ones, and those that stop after one value."""
    found = []
    for text in dict.fromkeys(_texts(body)):
        for hook in HOOKS:
            decoder = json.JSONDecoder(object_pairs_hook=hook, strict=False)
            with contextlib.suppress(*GAVE_UP):
                found.append(decoder.raw_decode(text.lstrip(" \t\r\n\0"))[0])
    return found


def models_in(value: Any, *, deep: bool = True) -> set[str]:
    """The models that a vendor might take from a value: at its top level, and at known places."""
    found: set[str] = set()
    if not isinstance(value, dict):
        return found
    for name in ("model", "models", "preset", "fallbacks"):
        _strings(value.get(name), found)
    if deep:
        for plugin in value.get("plugins") or ():
            if isinstance(plugin, dict):
                _strings(plugin.get("allowed_models"), found)
        for tool in value.get("tools") or ():
            found |= models_in(tool, deep=False)
        for call in value.get("requests") or ():
            if isinstance(call, dict):
                found |= models_in(call, deep=False) | models_in(call.get("params"), deep=False)
        found |= models_in(value.get("session"), deep=False)
    return {model.removeprefix("models/") for model in found}


def _strings(value: Any, found: set[str]) -> None:
    if isinstance(value, str):
        found.add(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _strings(item, found)
    elif isinstance(value, dict):
        naming = [
            item for name, item in value.items() if "model" in re.sub(r"\W", "", name.lower())
        ]
        for item in naming or value.values():
            _strings(item, found)


def as_json(content_type: str, body: bytes) -> set[str]:
    """Servers that read JSON whatever the content type is."""
    found: set[str] = set()
    for value in json_values(body):
        with contextlib.suppress(TypeError, AttributeError):
            found |= models_in(value)
    return found


# ── forms ────────────────────────────────────────────────────────────────────


def named(pairs: list[tuple[str, str]]) -> set[str]:
    """The models among fields, ignoring case, `[]` and white space."""
    wanted = ("model", "models", "model_id")
    return {value for name, value in pairs if re.sub(r"[^\w]", "", go_fold(name)) in wanted}


def urlencoded(content_type: str, body: bytes) -> set[str]:
    """URL-encoded forms, with `&` alone or also `;` between fields."""
    text = body.decode("utf-8", "replace")
    found: set[str] = set()
    for given in (text, text.replace(";", "&")):
        with contextlib.suppress(*GAVE_UP):
            found |= named(parse_qsl(given, keep_blank_values=True))
    return found


def by_email(content_type: str, body: bytes) -> set[str]:
    """Python's `email`, as used by `cgi` and many servers."""
    found: set[str] = set()
    for policy in (email.policy.compat32, email.policy.HTTP):
        head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
        message = email.message_from_bytes(head + body, policy=policy)
        payload = message.get_payload()
        pairs = []
        for part in payload if isinstance(payload, list) else ():
            name = part.get_param("name", header="content-disposition")
            if isinstance(name, tuple):
                name = name[2]
            value = part.get_payload(decode=True)
            if name is not None and isinstance(value, bytes):
                pairs.append((str(name), value.decode("utf-8", "replace").strip("\r\n")))
        found |= named(pairs)
    return found


def by_werkzeug(content_type: str, body: bytes) -> set[str]:
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    _, form, _ = parse_form_data(environ)
    return named([(name, value) for name in form for value in form.getlist(name)])


def by_python_multipart(content_type: str, body: bytes) -> set[str]:
    """The parser of Starlette and FastAPI."""
    pairs: list[tuple[str, str]] = []

    def field(found: Any) -> None:
        name, value = found.field_name or b"", found.value or b""
        pairs.append((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")))

    headers = {"Content-Type": content_type.encode("latin-1"), "Content-Length": b"%d" % len(body)}
    with contextlib.suppress(python_multipart.exceptions.FormParserError):
        python_multipart.parse_form(headers, io.BytesIO(body), field, lambda file: None)
    return named(pairs)


def by_multipart(content_type: str, body: bytes) -> set[str]:
    """The parser of Bottle and Litestar."""
    _, options = multipart.parse_options_header(content_type)
    pairs: list[tuple[str, str]] = []
    with contextlib.suppress(multipart.MultipartError):
        parser = multipart.MultipartParser(
            io.BytesIO(body), options.get("boundary", ""), len(body), strict=False
        )
        pairs += [(part.name, part.value) for part in parser]
    return named(pairs)


def by_go(content_type: str, body: bytes) -> set[str]:
    """Go's `mime/multipart`: LF is accepted like CRLF, and white space may follow a delimiter."""
    found = re.search(r'boundary="?([^";,]+)', content_type, re.IGNORECASE)
    if found is None:
        return set()
    return named(_loose(body, re.escape(found[1].strip().encode()), rb"[ \t]*\r?\n"))


def by_splitting(content_type: str, body: bytes) -> set[str]:
    """Hand-written parsers: the body split wherever a boundary occurs, with any of the
    boundaries.
    """
    pairs: list[tuple[str, str]] = []
    for found in re.findall(r'boundary\*?\d?=("[^"]*"|[^;,\s]+)', content_type, re.IGNORECASE):
        for boundary in {found, found.strip('"'), found.rpartition("'")[2]}:
            pairs += _loose(body, re.escape(boundary.encode("latin-1")), rb"[^\r\n]*\r?\n")
            pairs += _loose(body, re.escape(boundary.encode("latin-1")), rb"")
    return named(pairs)


def _loose(body: bytes, boundary: bytes, after: bytes) -> list[tuple[str, str]]:
    lead = rb"(?:^|\r?\n)--" if after else rb"--"
    pairs = []
    for piece in re.split(lead + boundary + after, b"\n" + body)[1:]:
        end = re.search(lead + boundary + rb"--", piece)
        piece = piece[: end.start()] if end is not None else piece
        head, gap, value = re.sub(rb"\r\n", rb"\n", piece).lstrip(b"\n").partition(b"\n\n")
        if not gap:
            continue
        head = re.sub(rb"\n[ \t]+", b" ", head)
        for line in head.split(b"\n"):
            if line.lower().lstrip().startswith(b"content-disposition"):
                for name in re.findall(rb'\bname\*?\d?\*?=(?:"([^"]*)"?|([^\s;]*))', line):
                    text = (name[0] or name[1]).rpartition(b"''")[2].decode("latin-1")
                    pairs.append((text, value.decode("utf-8", "replace").strip()))
    return pairs


MULTIPART: tuple[Reader, ...] = (
    by_email,
    by_werkzeug,
    by_python_multipart,
    by_multipart,
    by_go,
    by_splitting,
)


def everything(content_type: str, body: bytes) -> set[str]:
    """All models that some server might run for a body, whatever its declared type."""
    found = as_json(content_type, body)
    if "x-www-form-urlencoded" in content_type.lower():
        found |= urlencoded(content_type, body)
    if "multipart" in content_type.lower():
        for reader in MULTIPART:
            with contextlib.suppress(*GAVE_UP):
                found |= reader(content_type, body)
    return found
