"""`TextGuard`: blocks or masks what a finder finds in requests and responses.

Theory of operation. A request is checked as a whole before it goes out: all texts of its JSON body
(`json_text`). A response is checked as events, in one of three modes:

- `window`: text is released when `window` further characters of its block have arrived, or the
  block has ended. A finding that is no longer than the window is therefore complete before its
  first character is released. A finding across the limit is held until it ends.
- `hold`: a block is released when it has ended.
- `audit`: everything is released at once; findings are only logged.

A tool call is held until it is complete in `window`, too: its arguments are JSON, in which a text
can be written in many ways, so the decoded strings are checked.

With `action="block"` a finding ends the request or response with an error that names its kind, not
its text. With `"mask"` it is replaced by `[kind]`. With `restore=True` as well, each finding of a
request is replaced by a placeholder of its own, `[kind 1]`, and the response has placeholders
replaced by what they stand for: the provider never sees the text, the client does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import off_loop
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, require_int_at_least
from asgi_aiproxy.hooks.base import Call, Hook
from asgi_aiproxy.hooks.findings import TextFinder, TextMatch, check_finder, regex_finder
from asgi_aiproxy.hooks.json_text import map_json, map_texts, parse_unambiguous, texts_of
from asgi_aiproxy.messages import (
    Block,
    BlockDelta,
    BlockEnd,
    BlockStart,
    Event,
    EventFilter,
    Media,
    MessageEnd,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)

logger = logging.getLogger("asgi_aiproxy")

Action = Literal["block", "mask"]
Mode = Literal["window", "hold", "audit"]

_MAX_PLACEHOLDER = 40  # characters


class TextGuard(Hook):
    """Checks the texts of requests and responses.

    Arguments:

    - `find`: finds what is to be blocked or masked, see `asgi_aiproxy.hooks.findings`.
    - `action`: `"block"` or `"mask"`.
    - `mode`: when text of a response is released: `"window"`, `"hold"` or `"audit"`.
    - `window`: characters that are held back; at least as long as anything that `find` finds.
    - `request`, `response`: whether requests and responses are checked.
    - `restore`: masks in requests are replaced by their texts in the response.

    Raises ConfigurationError for an invalid argument.
    """

    def __init__(
        self,
        find: TextFinder,
        *,
        action: Action = "block",
        mode: Mode = "window",
        window: int = 256,
        request: bool = True,
        response: bool = True,
        restore: bool = False,
    ) -> None:
        check_finder("TextGuard", find)
        if action not in ("block", "mask") or mode not in ("window", "hold", "audit"):
            raise ConfigurationError(
                "TextGuard: action is 'block' or 'mask', mode is 'window', 'hold' or 'audit'."
            )
        if restore and (action != "mask" or not request):
            raise ConfigurationError("TextGuard: restore=True needs action='mask', request=True.")
        require_int_at_least(window=window)
        self._find = find
        self._action = action
        self._mode = mode
        self._window = window
        self._request = request
        self._response = response
        self._restore = restore

    def __repr__(self) -> str:
        name = getattr(self._find, "__qualname__", repr(self._find))
        return f"TextGuard({name}, action={self._action!r}, mode={self._mode!r})"

    async def before(self, call: Call) -> None:
        """Check the request: block it, or mask its texts. Fields of an upload cannot be masked."""
        if not self._request:
            return
        for _, text in call.form_fields:
            if found := list(self._find(text)):
                raise _blocked("request", found[0])
        body = call.body
        if not body:
            return
        masks = call.state.setdefault(self, _Masks(self._restore))
        changed = await off_loop(len(body), partial(self._checked_body, masks), body)
        if changed is not body:
            call.body = changed

    def _checked_body(self, masks: _Masks, body: bytes) -> bytes:
        """The body with its texts masked; the same object if there is nothing to mask. Raises
        APIError if it is blocked.
        """
        try:
            value = parse_unambiguous(body)
        except (ValueError, UnicodeError, RecursionError):
            text = body.decode("utf-8", "surrogateescape")  # of another format
            changed = self._checked_text(text, masks)
            return body if changed == text else changed.encode("utf-8", "surrogateescape")
        if self._action == "block":
            for text in texts_of(value):
                self._checked_text(text, masks)
            return body
        masked = map_texts(value, lambda text: self._checked_text(text, masks))
        return body if masked is value else _json.dumps(masked)

    def _checked_text(self, text: str, masks: _Masks) -> str:
        found = list(self._find(text))
        if found and self._action == "block":
            raise _blocked("request", found[0])
        return _replaced(text, found, masks.mask)

    def filters(self, call: Call) -> Sequence[EventFilter]:
        """Make the filters of one response."""
        made: list[EventFilter] = []
        if self._response:
            made.append(TextFilter(self._find, self._action, self._mode, self._window))
        masks = call.state.get(self)
        if self._restore and masks is not None and masks.texts:
            made.append(TextFilter(_PLACEHOLDER, "mask", "window", _MAX_PLACEHOLDER, masks.restore))
        return made


_PLACEHOLDER = regex_finder(r"\[[a-z]{1,20} \d{1,6}\]", kind="placeholder")


class _Masks:
    """The placeholders of one call and what they stand for."""

    def __init__(self, numbered: bool) -> None:
        self._numbered = numbered
        self._names: dict[str, str] = {}
        self.texts: dict[str, str] = {}

    def mask(self, finding: TextMatch, text: str) -> str:
        if not self._numbered:
            return f"[{finding.kind}]"
        name = self._names.get(text)
        if name is None:
            word = "".join(c for c in finding.kind.lower() if "a" <= c <= "z")[:20] or "text"
            name = self._names[text] = f"[{word} {len(self._names) + 1}]"
            self.texts[name] = text
        return name

    def restore(self, finding: TextMatch, text: str) -> str:
        return self.texts.get(text, text)


Replace = Callable[[TextMatch, str], str]


def _replaced(text: str, findings: Iterable[TextMatch], replace: Replace) -> str:
    """Return the text with its findings replaced."""
    out, at = [], 0
    for finding in findings:
        start = max(finding.start, at)
        out += [text[at:start], replace(finding, text[start : finding.end])]
        at = finding.end
    return "".join([*out, text[at:]]) if out else text


def _mask(finding: TextMatch, text: str) -> str:
    return f"[{finding.kind}]"


def _blocked(what: str, finding: TextMatch) -> APIError:
    return APIError(
        ErrorKind.FORBIDDEN,
        f"The {what} is blocked: it holds text that is not allowed ({finding.kind}).",
        code="content_blocked",
    )


class TextFilter:
    """Blocks or masks findings in the events of one response; see the top of this module.

    Arguments are those of `TextGuard`; `replace` returns what a finding is replaced by.
    """

    limited = True  # it waits for nothing

    def __init__(
        self, find: TextFinder, action: Action, mode: Mode, window: int, replace: Replace = _mask
    ) -> None:
        self._find = find
        self._action = action
        self._mode = mode
        self._window = window
        self._replace = replace
        self._texts: dict[int, str] = {}  # of open blocks: what is held back
        self._before: dict[int, str] = {}  # the end of what was released before it
        self._calls: dict[int, tuple[ToolCall, list[str]]] = {}  # tool calls that are held
        self._waiting: dict[int, list[Event]] = {}  # of blocks after them

    async def feed(self, event: Event) -> Sequence[Event]:
        """Return the events to release. Raises APIError if the response is blocked."""
        match event:
            case BlockStart(index, block):
                return self._in_order(index, self._start(index, block))
            case BlockDelta(index, text) if index in self._calls:
                self._calls[index][1].append(text)
                return ()
            case BlockDelta(index, text):
                self._texts[index] = self._texts.get(index, "") + text
                return self._in_order(index, self._release(index))
            case BlockEnd(index) if index in self._calls:
                return self._in_order(index, [*self._call(index), self._checked_end(event)])
            case BlockEnd(index):
                texts = self._release(index, last=True) if index in self._texts else ()
                return self._in_order(index, [*texts, self._checked_end(event)])
            case MessageEnd(refusal=refusal) if refusal:
                return (msgspec.structs.replace(event, refusal=self._checked(refusal)),)
        return (event,)

    def _in_order(self, index: int, events: Sequence[Event]) -> Sequence[Event]:
        """Return what may be sent, now that a block has these events: blocks begin in the order of
        their indices, so those after a held tool call wait for it."""
        first_held = min(self._calls, default=math.inf)
        if not self._waiting and index < first_held:
            return events
        self._waiting.setdefault(index, []).extend(events)
        out: list[Event] = []
        for each in sorted(self._waiting):
            if each < first_held:
                out += self._waiting.pop(each)
        return out

    async def close(self) -> Sequence[Event]:
        """Return nothing: each block is released at its end."""
        return ()

    def _start(self, index: int, block: Block) -> Sequence[Event]:
        match block:
            case ToolCall():
                self._calls[index] = block, [block.arguments]
                return ()
            case Text(text) | Refusal(text) | Reasoning(text):
                self._texts[index], self._before[index] = text, ""
                start = BlockStart(index, msgspec.structs.replace(block, text=""))
                return [start, *self._release(index)]
            case Opaque(dialect, payload):
                changed = map_texts(payload, self._checked)
                return (BlockStart(index, Opaque(dialect, changed)),)
            case Media(text=text, name=name):
                checked = {"text": self._checked(text), "name": self._checked(name)}
                return (BlockStart(index, msgspec.structs.replace(block, **checked)),)
        return (BlockStart(index, block),)

    def _release(self, index: int, *, last: bool = False) -> Sequence[Event]:
        """Return a delta with what may be released of a block's text."""
        text, before = self._texts[index], self._before.get(index, "")
        if self._mode == "audit":
            self._before[index] = text
            if last:
                self._checked(text)
                self._forget(index)
                return ()
            new = text[len(before) :]
            return (BlockDelta(index, new),) if new else ()
        if self._mode == "hold" and not last:
            return ()
        skip = len(before)
        found = [
            TextMatch(max(f.start - skip, 0), f.end - skip, f.kind)
            for f in self._find(before + text)
            if f.end > skip
        ]
        if found and self._action == "block":
            raise _blocked("response", found[0])
        limit = len(text) if last else max(len(text) - self._window, 0)
        for finding in found:
            if finding.start < limit < finding.end:
                limit = finding.start
        out = _replaced(text[:limit], [f for f in found if f.end <= limit], self._replace)
        if last:
            self._forget(index)
        else:
            self._texts[index] = text[limit:]
            self._before[index] = (before + text[:limit])[-_CONTEXT:]
        return (BlockDelta(index, out),) if out else ()

    def _forget(self, index: int) -> None:
        del self._texts[index]
        self._before.pop(index, None)

    def _call(self, index: int) -> Sequence[Event]:
        """Return the events of a complete tool call but its end."""
        call, pieces = self._calls.pop(index)
        arguments = "".join(pieces)
        self._checked(call.name)
        if self._action == "block" or self._mode == "audit":
            try:
                value = msgspec.json.decode(arguments)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                value = arguments
            for text in texts_of(value):
                self._checked(text)
        else:
            changed = map_json(arguments, self._checked)
            arguments = self._checked(arguments) if changed is None else changed
        start = BlockStart(index, msgspec.structs.replace(call, arguments=""))
        return [start, BlockDelta(index, arguments)] if arguments else [start]

    def _checked_end(self, end: BlockEnd) -> BlockEnd:
        """The end of a block; citations with a finding are left out."""
        if not end.citations:
            return end
        kept = []
        for citation in end.citations:
            texts = (citation.url, citation.title, citation.quote)
            if all(self._checked(text) == text for text in texts):
                kept.append(citation)
        return msgspec.structs.replace(end, citations=tuple(kept))

    def _checked(self, text: str) -> str:
        """A whole text with its findings masked. Raises APIError if it is blocked."""
        found = list(self._find(text)) if text else []
        if not found:
            return text
        if self._mode == "audit":
            logger.warning("a response holds text that a guard has found: %s", found[0].kind)
            return text
        if self._action == "block":
            raise _blocked("response", found[0])
        return _replaced(text, found, self._replace)


_CONTEXT = 16  # characters before a held text, which decide whether a finding begins in it
