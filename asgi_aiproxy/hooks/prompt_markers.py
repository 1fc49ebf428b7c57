"""`PromptMarkers`: lets callers steer the gateway by markers in their prompts.

The markers are those of chatgpt-adapter:

- `<regex order=1 miss=2>PATTERN:REPLACEMENT</regex>` rewrites the messages that are not system
  messages, but for the last `miss` + 1; without `miss`, all. A larger `order` comes first.
- `<@2 role="system">TEXT</@2>` inserts a message after that position (negative: counted from the
  end); with `miss=false` also if there are fewer messages.
- `<histories>[{"role": "user", "content": "..."}]</histories>` inserts messages before the first
  one that is not a system message.
- `<matcher find="..." end="..." len=5>PATTERN:REPLACEMENT</matcher>` rewrites the response
  (`TextReplacements`).
- `<tool enabled id="NAME" tasks />` emulates tools for this request (`asgi_aiproxy.emulation`).
- `<char_sequences user="U" assistant="A" />` adds stop sequences.
- `<echo />` answers with the prompt as it would be sent; no provider is called.
- `<debug />` logs the prompt.
- `<!-- ... -->` is a comment.

Only system and user messages are searched, never what the model writes. A marker is removed from
the text; `<notebook />` and `<pad />` are removed and do nothing. An error in a marker is logged,
and the marker is ignored.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from asgi_aiproxy.emulation import Emulation
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.hooks.base import Call, Hook
from asgi_aiproxy.hooks.bounded_regex import RegexBudget, RegexError, Replacement, load_regex
from asgi_aiproxy.hooks.marker_parser import MARKERS, Marker, parse_markers
from asgi_aiproxy.hooks.replacements import (
    DEFAULT_LENGTH,
    MAX_STRETCH,
    ReplacementFilter,
    TextRule,
)
from asgi_aiproxy.messages import EventFilter, Message, Part, Request, Text
from asgi_aiproxy.principal import Principal

logger = logging.getLogger("asgi_aiproxy")

REGEX_SECONDS = 0.02  # for all expressions on the messages of one request
MAX_INSERTED = 100  # messages of a marker
_KNOWN = MARKERS | {"@"}
_BRACKETS = (b"<", b"\\u003c", b"\\u003C")  # as they may be written in JSON
_RULES = "prompt_markers.rules"


class PromptMarkers(Hook):
    """A hook that obeys the markers in prompts.

    Arguments:

    - `markers`: the names of the markers that are obeyed (`@` for insertions); by default all but
      `debug`, which writes prompts to the log. Others stay in the text.
    - `allow`: whether a caller may use markers; by default every caller may. The markers of others
      stay in the text.

    Raises ConfigurationError for an unknown name, or if a library is not installed
    (`asgi-aiproxy[markers]`).
    """

    def __init__(
        self,
        markers: Iterable[str] = _KNOWN - {"debug"},
        *,
        allow: Callable[[Principal], bool] = lambda principal: True,
    ) -> None:
        self._markers = frozenset(markers)
        unknown = sorted(self._markers - _KNOWN)
        if unknown:
            raise ConfigurationError(
                f"There is no marker {unknown[0]!r}. There are: {', '.join(sorted(_KNOWN))}."
            )
        load_regex()
        self._allow = allow
        self._emulations: dict[tuple[str, bool], Emulation] = {}

    def __repr__(self) -> str:
        return f"PromptMarkers({', '.join(sorted(self._markers))})"

    async def before(self, call: Call) -> None:
        """Apply the markers of a chat request."""
        if not self._allow(call.principal) or not any(b in call.body for b in _BRACKETS):
            return
        request = call.request
        if request is None:
            return
        messages, markers = _extract(request.messages, self._markers)
        if messages == request.messages:
            return
        markers.sort(key=lambda marker: marker.order, reverse=True)
        budget = RegexBudget(REGEX_SECONDS)
        request = msgspec.structs.replace(request, messages=messages)
        for marker in markers:
            try:
                request = self._apply(call, request, marker, budget)
            except (RegexError, ConfigurationError, ValueError) as error:
                logger.warning(
                    "request %s: the marker <%s> is ignored: %s",
                    *(call.request_id, marker.name, error),
                )
        call.request = request
        names = {marker.name for marker in markers}
        if "debug" in names:
            logger.info("request %s: prompt: %s", call.request_id, _as_json(request))
        if "echo" in names:
            call.answer(_as_json(request))

    def filters(self, call: Call) -> Sequence[EventFilter]:
        """Make the filter of the rules that the request has, if any."""
        rules = call.state.get(_RULES)
        return (ReplacementFilter(rules),) if rules else ()

    def _apply(self, call: Call, request: Request, marker: Marker, budget: RegexBudget) -> Request:
        match marker.name:
            case "regex":
                return _rewrite(request, marker, budget)
            case "@":
                return _insert(request, marker)
            case "histories":
                return _add_history(request, marker)
            case "char_sequences":
                given = (marker.attributes.get(side) for side in ("user", "assistant"))
                stop = (text for text in given if isinstance(text, str) and text)
                return msgspec.structs.replace(
                    request, stop=tuple(dict.fromkeys((*request.stop, *stop)))
                )
            case "tool":
                emulation = self._emulation(marker)
                if emulation is not None:
                    call.emulate = emulation
            case "matcher":
                rule = _rule(marker)
                call.state.setdefault(_RULES, []).append((rule, Replacement(rule.replace)))
        return request

    def _emulation(self, marker: Marker) -> Emulation | None:
        """The emulation that a `<tool />` marker wants; None if it switches it off."""
        attributes = marker.attributes
        if attributes.get("enabled", True) is False or attributes.get("disabled") is True:
            return None
        default = attributes.get("id")
        name = default if isinstance(default, str) and default != "-1" else ""
        tasks = attributes.get("tasks") is True
        if name:  # names of callers are not kept
            return Emulation("tools", default_tool=name, tasks=tasks)
        key = (name, tasks)
        if key not in self._emulations:
            self._emulations[key] = Emulation("tools", tasks=tasks)
        return self._emulations[key]


def _extract(
    messages: Sequence[Message], known: frozenset[str]
) -> tuple[tuple[Message, ...], list[Marker]]:
    """The messages without markers, and the markers."""
    out: list[Message] = []
    markers: list[Marker] = []
    for message in messages:
        if message.role in ("system", "user"):
            parts = []
            for part in message.parts:
                if isinstance(part, Text) and "<" in part.text:
                    text, found = parse_markers(part.text, known)
                    markers += found
                    part = msgspec.structs.replace(part, text=text)
                parts.append(part)
            changed = msgspec.structs.replace(message, parts=tuple(parts))
            if changed != message and len(messages) > 1 and not any(map(_has_content, parts)):
                continue  # it consisted of markers
            message = changed
        out.append(message)
    return tuple(out), markers


def _has_content(part: Part) -> bool:
    return not isinstance(part, Text) or bool(part.text.strip())


def _rewrite(request: Request, marker: Marker, budget: RegexBudget) -> Request:
    replacement = Replacement(marker.body)
    miss = marker.attributes.get("miss")
    last = len(request.messages)
    if isinstance(miss, int) and not isinstance(miss, bool) and miss >= 0:
        last -= 1 + miss
    messages = []
    for number, message in enumerate(request.messages):
        if message.role != "system" and number < last:
            message = msgspec.structs.replace(
                message,
                parts=tuple(
                    msgspec.structs.replace(part, text=budget.run(replacement, part.text))
                    if isinstance(part, Text)
                    else part
                    for part in message.parts
                ),
            )
        messages.append(message)
    return msgspec.structs.replace(request, messages=tuple(messages))


def _insert(request: Request, marker: Marker) -> Request:
    messages = list(request.messages)
    last = len(messages) - 1
    if abs(marker.depth) > last and marker.attributes.get("miss", True) is not False:
        return request
    place = min(marker.depth, last) if marker.depth >= 0 else max(len(messages) + marker.depth, 0)
    role = marker.attributes.get("role", "user")
    if role not in ("system", "user", "assistant"):
        raise ValueError("role must be system, user or assistant")
    messages.insert(place + 1, Message(role, (Text(marker.body),)))
    return msgspec.structs.replace(request, messages=tuple(messages))


def _add_history(request: Request, marker: Marker) -> Request:
    rows = json.loads(marker.body)
    if not isinstance(rows, list) or len(rows) > MAX_INSERTED:
        raise ValueError(f"it must be a list of at most {MAX_INSERTED} messages")
    added = [_message(row) for row in rows]
    messages = list(request.messages)
    place = next(
        (number for number, message in enumerate(messages) if message.role != "system"),
        len(messages),
    )
    messages[place:place] = added
    return msgspec.structs.replace(request, messages=tuple(messages))


def _message(row: Any) -> Message:
    if not isinstance(row, dict) or not isinstance(row.get("content"), str):
        raise ValueError("each message needs a role, and a text as content")
    role = row.get("role")
    if role not in ("system", "user", "assistant"):
        raise ValueError("role must be system, user or assistant")
    return Message(role, (Text(row["content"]),))


def _rule(marker: Marker) -> TextRule:
    attributes = marker.attributes
    find, end = attributes.get("find"), attributes.get("end", "")
    length = attributes.get("len", DEFAULT_LENGTH)
    if isinstance(length, str) and length.isdecimal():
        length = int(length)
    if not isinstance(find, str) or not isinstance(end, str) or not isinstance(length, int):
        raise ValueError("find and end must be text in quotes, len a number")
    return TextRule(find=find, end=end, length=min(length, MAX_STRETCH), replace=marker.body)


def _as_json(request: Request) -> str:
    """The prompt as it would be sent: the messages in the form of the chat API."""
    rows = [
        {
            "role": message.role,
            "content": "".join(part.text for part in message.parts if isinstance(part, Text)),
        }
        for message in request.messages
    ]
    return json.dumps(rows, ensure_ascii=False)
