"""Read model and usage from a response in any vendor's format, even if only its two ends are kept.

Only members of the response itself count, and of the message that an event is about: a model can
write anything else, for example in the arguments of a tool.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, cast

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.json_scan import JSONMember, members_from_end, members_from_start
from asgi_aiproxy.messages import Usage

Counts = dict[str, Any]

_HEAD = 8 * 1024  # bytes of the beginning, which contain the model
_MAX_USAGE_OBJECT = 4096  # bytes of a usage object
_NOTHING = msgspec.Raw(b"")
# What the event of a stream is about.
_EVENT_SUBJECTS = frozenset({b"response", b"message", b"session", b"delta", b"x_groq"})
_EVENTS = (b"data:", b"event:", b"id:", b"retry:", b":")
# Members that OpenAI's newer usage has beside `input_tokens`, and Anthropic's does not.
_RESPONSES_USAGE = frozenset({"total_tokens", "input_tokens_details", "input_token_details"})
_USAGE = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{|"eval_count"')
_LINE = re.compile(rb"[^\r\n]+")
_scan = json.JSONDecoder().raw_decode


class _UsageFields(msgspec.Struct, gc=False):
    """The members that matter, still encoded: each may be of any type."""

    model: msgspec.Raw = _NOTHING
    modelVersion: msgspec.Raw = _NOTHING  # noqa: N815 (Google's spelling)
    usage: msgspec.Raw = _NOTHING
    usageMetadata: msgspec.Raw = _NOTHING  # noqa: N815
    prompt_eval_count: msgspec.Raw = _NOTHING
    eval_count: msgspec.Raw = _NOTHING
    response: msgspec.Raw = _NOTHING
    message: msgspec.Raw = _NOTHING
    session: msgspec.Raw = _NOTHING
    delta: msgspec.Raw = _NOTHING
    x_groq: msgspec.Raw = _NOTHING
    choices: msgspec.Raw = _NOTHING


_document_decoder = msgspec.json.Decoder(_UsageFields)
_array_decoder = msgspec.json.Decoder(list[_UsageFields])


def extract_usage(head: bytes, rest: bytes) -> tuple[str, Usage | None]:
    """Return model and usage of a response that begins with `head` and ends with `rest`.

    They are the same object if the response is whole. Empty and None if it reports neither.
    """
    if head is rest:
        document = _decode_object(rest)
        if document is not None:
            return _model(document), _usage(_counts(document))
        elements = _decode_array(rest)
        if elements is not None:
            return _combine(elements, reversed(elements))
    if head.startswith(b"\0"):  # the length of a binary message, which is below 16 MiB
        return _combine([], _payloads_back(rest))
    if (
        head.lstrip().startswith(_EVENTS)
        or _decode_object(head.lstrip().partition(b"\n")[0]) is not None
    ):
        return _combine(_lines(head[:_HEAD]), _lines_back(rest, cut=head is not rest))
    return _combine([_first(head)], [_last(rest)] if head is not rest else [])


def extract_usage_from_event(text: str) -> tuple[str, Usage | None]:
    """Return model and usage that one event reports."""
    found = _decode_object(text.encode())
    return ("", None) if found is None else _combine([found], [])


def _combine(
    first: Iterable[_UsageFields], last: Iterable[_UsageFields]
) -> tuple[str, Usage | None]:
    """Return the first model and the last usage; counts that are only in the beginning are added.

    `last` is in backward order.
    """
    counts, searched = Counts(), []
    for found in last:
        searched.append(found)
        counts = _counts(found)
        if counts:
            break
    all_counts = "total_tokens" in counts or "totalTokenCount" in counts
    model, early = "", Counts()
    for found in first:
        model = model or _model(found)
        if not all_counts:
            early = early or _counts(found)
        if model and (early or counts):
            break
    if not all_counts:
        counts = early | {name: count for name, count in counts.items() if count is not None}
    return model or next(filter(None, map(_model, searched)), ""), _usage(counts)


def _decode_array(data: bytes) -> list[_UsageFields] | None:
    """Return the elements of an array; None if it is something else."""
    try:
        return _array_decoder.decode(data)
    except (ValueError, RecursionError):
        return None


def _decode_object(data: bytes) -> _UsageFields | None:
    try:
        return _document_decoder.decode(data)
    except msgspec.ValidationError:
        return None
    except (ValueError, RecursionError):
        pass
    try:  # legal but unusual JSON
        return (
            _json.typed(_document_decoder, data) if data[:1] == b"{" and data[-1:] == b"}" else None
        )
    except (ValueError, RecursionError):
        return None


def _lines(data: bytes) -> Iterator[_UsageFields]:
    """Yield the members of each event or line; the last of them may be cut."""
    known = False  # the model is not known yet
    for line in _LINE.finditer(data):
        text = _data(line[0])
        if text and (_USAGE.search(text) or (not known and b'"model' in text)):
            found = _decode_object(text) or _first(text)
            known = known or bool(_model(found))
            yield found


def _lines_back(data: bytes, *, cut: bool) -> Iterator[_UsageFields]:
    """Yield the events or lines with usage, from the end; `cut`: the first line lacks its
    beginning.
    """
    for word in (b'"usage', b'"eval_count"'):
        at = len(data)
        while (at := data.rfind(word, 0, at)) >= 0:
            if _USAGE.match(data, at) is None:
                continue
            at = max(data.rfind(b"\n", 0, at), data.rfind(b"\r", 0, at)) + 1
            line = data[at:].partition(b"\n")[0].partition(b"\r")[0]
            text = _data(line)
            found = _decode_object(text) if text else None
            if found is not None:
                yield found
            elif cut and at == 0 and not text:
                yield _last(line, event=True)


def _payloads_back(data: bytes) -> Iterator[_UsageFields]:
    """Yield the JSON payloads with usage in Amazon's binary event stream, from the end.

    Text of a model is inside strings, where its quotes are escaped: it cannot look like usage.
    """
    at = len(data)
    while (at := data.rfind(b'"usage":', 0, at)) >= 0:
        start = at
        while (start := data.rfind(b"{", max(0, at - _MAX_USAGE_OBJECT), start)) >= 0:
            text = data[start : at + _MAX_USAGE_OBJECT].decode("latin-1")
            try:
                value, end = _scan(text)
            except (ValueError, RecursionError):
                continue
            if end > at - start and "usage" in value:
                yield _UsageFields(usage=msgspec.Raw(_json.dumps(value["usage"])))
                break


def _data(line: bytes) -> bytes:
    if line.startswith(b"data:"):
        return line[5:].strip()
    return line if line.startswith(b"{") else b""


def _first(data: bytes) -> _UsageFields:
    """Return the members at the beginning of a text: of the object itself, and of the message in
    it.
    """
    base = 2 if data.lstrip().startswith(b"[") else 1
    return _gathered(
        data,
        (
            each
            for each in members_from_start(data)
            if each.depth == base or (each.depth == 2 and each.within in _EVENT_SUBJECTS)
        ),
        first=True,
    )


def _last(data: bytes, *, event: bool = False) -> _UsageFields:
    """Return the members at the end of a text; of an `event` also those of the message in it."""
    data = data.rstrip()
    base = 2 if data.endswith(b"]") else 1
    if not data.endswith((b"]", b"}")):
        return _UsageFields()  # its end is missing
    return _gathered(
        data,
        (
            each
            for each in members_from_end(data)
            if each.depth == base
            or (
                event
                and each.depth == 2
                and (each.within is None or each.within in _EVENT_SUBJECTS)
            )
        ),
        first=False,
    )


def _gathered(data: bytes, members: Iterable[JSONMember], *, first: bool) -> _UsageFields:
    """Return the values of these members; of two with one name, the first or the last one."""
    found: dict[str, msgspec.Raw] = {}
    for member in members:
        name = member.name.decode("latin-1")
        if name in _MEMBERS and not (first and name in found):
            text = (
                data[member.at : member.at + _MAX_USAGE_OBJECT].decode("utf-8", "replace").lstrip()
            )
            try:
                value = _scan(text)[0]
            except (ValueError, RecursionError):
                continue  # cut, or too long for a value of this member
            if value is not None:
                found[name] = msgspec.Raw(_json.dumps(value))
    return _UsageFields(**found)


_MEMBERS = (
    frozenset(_UsageFields.__struct_fields__)
    - {each.decode() for each in _EVENT_SUBJECTS}
    - {"choices"}
)


def _with_inner(found: _UsageFields) -> Iterator[_UsageFields]:
    """Yield the members, and those of the objects inside that may hold usage and the model."""
    yield found
    choices = bytes(found.choices)
    if b'"usage"' in choices:  # as Moonshot does
        yield from _decode_array(choices) or ()
    for raw in (found.response, found.message, found.session, found.delta, found.x_groq):
        data = bytes(raw)
        if data.startswith(b"{"):
            inner = _decode_object(data)
            if inner is not None:
                yield inner


def _model(found: _UsageFields) -> str:
    for each in _with_inner(found):
        for raw in (each.model, each.modelVersion):
            value = _value(raw)
            if isinstance(value, str) and value:
                return value[:200]
    return ""


def _counts(found: _UsageFields) -> Counts:
    for each in _with_inner(found):
        for raw in (each.usage, each.usageMetadata):
            value = _value(raw)
            if isinstance(value, dict) and value:
                return value
        evaluated = {"prompt_eval_count": _value(each.prompt_eval_count)}
        evaluated["eval_count"] = _value(each.eval_count)
        if isinstance(evaluated["eval_count"], int):
            return evaluated
    return {}


def _value(raw: msgspec.Raw) -> Any:
    if raw is _NOTHING:
        return None
    try:
        return _json.loads(bytes(raw))
    except ValueError:
        return None


# How each API counts tokens: member names, of which one or more are present, and the module whose
# `decode_usage` reads them. It is imported on first use: an app loads the dialects that it speaks.
_FORMATS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"promptTokenCount"}), "gemini.responses"),
    (frozenset({"prompt_tokens", "completion_tokens"}), "openai_chat.usage"),
    (frozenset({"eval_count"}), "ollama"),
    (frozenset({"inputTokens", "outputTokens"}), "bedrock.streams"),
    (frozenset({"billed_units", "tokens"}), "cohere.streams"),
    (frozenset({"input_count", "output_count"}), "coze.streams"),
    (frozenset({"input_tokens", "output_tokens"}), "anthropic.responses"),
)


def _usage(counts: Counts) -> Usage | None:
    """Return the usage for counts in the format of any vendor; None if they cannot be read."""
    if "input_tokens" in counts and not _RESPONSES_USAGE.isdisjoint(counts):
        return _decoded("openai_chat.usage", "decode_new_usage", counts)
    for names, module in _FORMATS:
        if not names.isdisjoint(counts):
            return _decoded(module, "decode_usage", counts)
    return None


def _decoded(module: str, name: str, counts: Counts) -> Usage | None:
    """Return what a function of a dialect's module reads from the counts."""
    try:
        return _decoder(module, name)(counts)
    except (AttributeError, TypeError, ValueError):
        return None


@cache
def _decoder(module: str, name: str) -> Callable[[Counts], Usage | None]:
    found = getattr(importlib.import_module(f"asgi_aiproxy.dialects.{module}"), name)
    return cast("Callable[[Counts], Usage | None]", found)
