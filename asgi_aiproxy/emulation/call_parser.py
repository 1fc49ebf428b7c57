"""Finds tool calls in the text of a response while it arrives. Theory of operation.

`CallParser` splits text into stretches for the client and stretches that are calls. Text passes
through at once, but for the few characters at its end that may begin a call: `{`, a code fence,
`1:` at the beginning of a line, a tag such as `<tool_call>`. What follows them decides soon:

- a JSON value is only held if its first member is one that calls have, or the name of a tool; it
  ends with its last bracket;
- a code fence is only held if a call may begin in it; it ends with the closing fence. Fences of
  other languages pass through;
- a tag is held up to its closing tag, and what it contains was meant as a call.

A held stretch is then read as calls (`call_syntax`). If it is not one, it is text after all and
passes through unchanged: nothing is lost, only late. A stretch longer than `MAX_HELD` characters is
text. Every character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from asgi_aiproxy.emulation.call_syntax import (
    ID_KEYS,
    Found,
    FoundCall,
    InvalidCall,
    ToolNames,
    calls_of_text,
    calls_of_value,
    python_calls,
    react_call,
    read_json,
)

MAX_HELD = 256 * 1024
_MAX_LEAD = 200  # characters within which an opening must decide

_KEYS = frozenset({*ID_KEYS, "id", "type", "arguments", "parameters", "tool_calls", "calls"})
_FIRST_KEY = re.compile(r"(?:\[\s*)?\{\s*[\"']([^\"'\\]{0,100})[\"']\s*:")
_FIRST_KEY_PART = re.compile(r"(?:\[\s*)?(?:\{\s*(?:[\"'](?:[^\"'\\]{0,100}[\"']?\s*)?)?)?\Z")
_LINE_CALL = re.compile(r"[ \t]*1\s*[:\uff1a]\s*(?=[\[{`<])")
_LINE_CALL_PART = re.compile(r"[ \t]*(?:1\s*(?:[:\uff1a]\s*)?)?\Z")
_CUT_OFF_MARK = re.compile(r"\s*1\s*[:\uff1a]\s*")
_ANSWER = re.compile(r"\s*0\s*[:\uff1a]")
_ANSWER_PART = re.compile(r"\s*(?:0\s*)?\Z")
_FENCE = re.compile(r"```([\w+-]{0,20})[ \t]*\r?\n?\s*")
_FENCE_PART = re.compile(r"`{1,3}[\w+-]{0,20}[ \t]*\r?\n?\s*\Z")
_CALL_FENCES = frozenset({"", "json", "xml", "text", "plaintext", "tool", "tool_call", "tool_code"})
_ACTION = re.compile(r"[ \t]*Action:[ \t]*([\w.-]*)")
_BRACKET = re.compile(r"[\"'{}\[\]()\\]")

# Tags that begin calls, with what ends them; without an end, the response does.
_TAGS = {
    "<tool_call>": "</tool_call>",
    "<tool_calls>": "</tool_calls>",
    "<function_call>": "</function_call>",
    "<function_calls>": "</function_calls>",
    "<function=": "</function>",
    "<invoke ": "</invoke>",
    "<|tool_call|>": "",
    "<|python_tag|>": "",
    "<|tool_call_start|>": "<|tool_call_end|>",
    "<|tool_call_begin|>": "<|tool_call_end|>",
    "<|tool_calls_section_begin|>": "<|tool_calls_section_end|>",
    # DeepSeek's, with a full-width bar and a block instead of the low line
    "<\uff5ctool\u2581calls\u2581begin\uff5c>": "<\uff5ctool\u2581calls\u2581end\uff5c>",
    "[TOOL_CALLS]": "",
    "[TOOL_REQUEST]": "[END_TOOL_REQUEST]",
}


class AnswerMark(msgspec.Struct, frozen=True):
    """The model wrote `0:`: what follows is its answer."""


class _Opening(NamedTuple):
    """Where a stretch begins that may be a call: its kind, what ends it, where its content begins.

    `kind`: `json`, `line` (after `1:`), `python`, `action`, `fence` or `tag`; `code` is a code
    fence that passes through.
    """

    kind: str
    closer: str
    content: int


class CallParser:
    """Splits text into text for the client, and calls.

    Arguments:

    - `names`: the names of the tools.
    - `instructed`: the model was given the instructions of `prompt`: it may mark an answer by `0:`
      and calls by `1:`, and what was meant as a call but is invalid is an `InvalidCall`. Otherwise
      only clear calls of these tools are found, and everything else is text.
    - `accepts`: whether a call that was not instructed is one; else it is text.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        instructed: bool,
        accepts: Callable[[FoundCall], bool] = lambda call: True,
    ) -> None:
        self._names = ToolNames(names)
        self._instructed = instructed
        self._accepts = accepts
        words = [re.escape(name) for name in names]
        at_line = [*words, *(rf"\[{word}" for word in words)] if instructed else []
        self._candidate = re.compile(
            r"[`{\[<]|(?:^|(?<=\n))[ \t]*(?:1(?=\s*[:\uff1a]|\s*\Z)"
            + (r"|Action:" if instructed else "")
            + "".join(rf"|{word}\(" for word in at_line)
            + ")"
        )
        self._line_words = [f"{lead}{name}(" for name in names for lead in ("", "[")]
        self._line_words.append("Action:")
        self._text = ""
        self._at_start = True  # of the response
        self._at_line_start = True  # whether `_text` begins a line
        self._opening: _Opening | None = None
        self._scanned = 0
        self._depth, self._quote, self._balanced = 0, "", False

    def feed(self, text: str) -> list[str | Found | AnswerMark]:
        """Return what the new text decides."""
        self._text += text
        out: list[str | Found | AnswerMark] = []
        while self._step(out, last=False):
            pass
        return out

    def close(self) -> list[str | Found | AnswerMark]:
        """Return the rest: what was held is a call, or text."""
        out: list[str | Found | AnswerMark] = []
        if self._instructed and self._opening is None and _CUT_OFF_MARK.fullmatch(self._text):
            out.append(InvalidCall(self._text, "It is not complete."))
            self._text = ""
        while self._step(out, last=True):
            pass
        if self._text and self._opening is not None and self._opening.kind != "code":
            self._end_stretch(len(self._text), len(self._text), out, complete=False)
        self._release(len(self._text), out)
        return out

    def _step(self, out: list[str | Found | AnswerMark], *, last: bool) -> bool:
        """Find the next beginning or end of a stretch; False if more text is needed."""
        if self._opening is not None:
            return self._find_end(out)
        start = 0
        if self._at_start and self._instructed and self._text:
            if found := _ANSWER.match(self._text):
                out.append(AnswerMark())
                self._text, self._at_start = self._text[found.end() :], False
                return True
            if not last and _ANSWER_PART.match(self._text):
                return False
            self._at_start = False
        while True:
            found = self._candidate.search(self._text, start)
            if found is None:
                break
            if found.start() == 0 and not self._at_line_start and found[0][0] not in "`{[<":
                start = 1
                continue
            opening = self._opening_at(found.start())
            if isinstance(opening, _Opening):
                self._release(found.start(), out)
                content = opening.content - found.start()
                self._opening = _Opening(opening.kind, opening.closer, content)
                self._scanned = self._opening.content if opening.kind != "action" else 0
                self._depth, self._quote, self._balanced = 0, "", False
                return True
            if opening is None and not last:
                self._release(found.start(), out)
                return False
            start = found.start() + 1
        self._release(len(self._text) if last else self._held_line(), out)
        return False

    def _held_line(self) -> int:
        """Where the last line begins, if it may become a call that is written at a line's start."""
        start = self._text.rfind("\n") + 1
        if start == 0 and not self._at_line_start:
            return len(self._text)
        line = self._text[start:]
        if not line.strip():
            return start if line else len(self._text)
        words = self._line_words if self._instructed else ()
        partial = _LINE_CALL_PART.match(line) or any(w.startswith(line.lstrip()) for w in words)
        return start if partial else len(self._text)

    def _release(self, end: int, out: list[str | Found | AnswerMark]) -> None:
        if end:
            out.append(self._text[:end])
            self._at_line_start = self._text[end - 1] == "\n"
            self._text = self._text[end:]

    def _opening_at(self, start: int) -> _Opening | bool | None:
        """The opening at `start`; None if more text must decide, False if there is none."""
        text, mark = self._text, self._text[start]
        if mark == "`":
            return self._fence_at(start)
        if mark in "<[" and ((tag := self._tag_at(start)) is not False or mark == "<"):
            return tag
        if mark in "{[" and not (mark == "[" and self._python_at(start)):
            return self._json_at(start)
        if found := _ACTION.match(text, start):
            if found.end() == len(text):
                return None if len(text) - start < _MAX_LEAD else False
            known = self._names.find(found[1]) is not None
            return _Opening("action", "", start) if known else False
        if found := _LINE_CALL.match(text, start):
            if text[found.end()] in "[{":
                return _Opening("line", "", found.end())
            inner = self._opening_at(found.end())
            return False if isinstance(inner, _Opening) and inner.kind == "code" else inner
        if _LINE_CALL_PART.match(text, start):
            return None
        return _Opening("python", "", start) if self._python_at(start) else False

    def _tag_at(self, start: int) -> _Opening | bool | None:
        rest = self._text[start : start + 40]
        for tag, closer in _TAGS.items():
            if rest.startswith(tag):
                return _Opening("tag", closer, start)
            if tag.startswith(rest):
                return None
        return False

    def _python_at(self, start: int) -> bool:
        rest = self._text[start : start + _MAX_LEAD].lstrip(" \t")
        return self._instructed and any(rest.startswith(word) for word in self._line_words)

    def _json_at(self, start: int) -> _Opening | bool | None:
        if found := _FIRST_KEY.match(self._text, start):
            known = found[1] in _KEYS or self._names.find(found[1]) is not None
            return _Opening("json", "", start) if known else False
        undecided = _FIRST_KEY_PART.match(self._text, start)
        return None if undecided and len(self._text) - start < _MAX_LEAD else False

    def _fence_at(self, start: int) -> _Opening | bool | None:
        if undecided := _FENCE_PART.match(self._text, start):
            return None if undecided.end() - start < _MAX_LEAD else False
        found = _FENCE.match(self._text, start)
        if found is None:
            return False
        code = _Opening("code", "```", start + 3)
        if found[1].lower() not in _CALL_FENCES:
            return code
        inner = self._opening_at(found.end()) if self._text[found.end()] != "`" else False
        if isinstance(inner, _Opening):
            return _Opening("fence", "```", found.end())
        return code if inner is False else None

    def _find_end(self, out: list[str | Found | AnswerMark]) -> bool:
        """Find the end of the open stretch; False if more text is needed."""
        opening = self._opening
        assert opening is not None  # noqa: S101
        if opening.kind == "code":
            return self._pass_code(opening.closer, out)
        if not self._balanced and opening.kind != "tag":
            end = self._bracket_end()
            if end < 0:
                return self._give_up(out)
            self._balanced, self._scanned = True, end
        if opening.kind not in ("tag", "fence"):
            self._end_stretch(self._scanned, self._scanned, out, complete=True)
            return True
        end = self._text.find(opening.closer, self._scanned) if opening.closer else -1
        if end < 0:
            self._scanned = max(len(self._text) - len(opening.closer) + 1, self._scanned)
            return self._give_up(out)
        self._end_stretch(end, end + len(opening.closer), out, complete=True)
        return True

    def _pass_code(self, closer: str, out: list[str | Found | AnswerMark]) -> bool:
        """Pass the content of a code fence through; False if it is not closed yet."""
        end = self._text.find(closer, self._scanned)
        if end >= 0:
            self._release(end + len(closer), out)
            self._opening = None
            return True
        kept = len(self._text) - len(self._text.rstrip("`"))
        self._release(len(self._text) - kept, out)
        self._scanned = 0
        return False

    def _give_up(self, out: list[str | Found | AnswerMark]) -> bool:
        """Treat a stretch that became too long as text."""
        if len(self._text) <= MAX_HELD:
            return False
        self._opening = None
        self._release(len(self._text), out)
        return True

    def _bracket_end(self) -> int:
        """The end of the outermost bracket; -1 if it is not there yet."""
        for found in _BRACKET.finditer(self._text, self._scanned):
            mark, place = found[0], found.start()
            if place < self._scanned:
                continue
            self._scanned = place + 1
            if mark == "\\":
                self._scanned = place + 2
            elif self._quote:
                self._quote = "" if mark == self._quote else self._quote
            elif mark in "\"'":
                self._quote = mark if mark == '"' or self._quotes_value(place) else ""
            elif mark in "{[(":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    return place + 1
        self._scanned = max(self._scanned, len(self._text))
        return -1

    def _quotes_value(self, place: int) -> bool:
        """Whether a `'` begins a string: it stands after a bracket, a comma, a colon or `=`."""
        return self._text[:place].rstrip()[-1:] in ("{", "[", "(", ",", ":", "=")

    def _end_stretch(
        self, end: int, stop: int, out: list[str | Found | AnswerMark], *, complete: bool
    ) -> None:
        """Read the stretch up to `end` as calls; `stop` is behind what closes it."""
        opening, self._opening = self._opening, None
        assert opening is not None  # noqa: S101
        content, whole = self._text[opening.content : end], self._text[:stop]
        found = self._read(opening.kind, content, complete=complete)
        if found is None:
            if opening.kind == "fence":  # text with the brackets of its content
                self._release(stop, out)
                return
            self._release(len(whole), out)
            return
        out += found
        self._text = self._text[stop:]
        self._at_line_start = True

    def _read(self, kind: str, content: str, *, complete: bool) -> list[Found] | None:
        """The calls in a stretch; None if it is text."""
        names, found = self._names, list[Found]()
        problem = "It is not valid JSON." if complete else "It is not complete."
        match kind:
            case "json" | "line":
                try:
                    found = calls_of_value(read_json(content), names)
                    problem = "It does not name a tool by `toolId`."
                except ValueError:
                    found = []
            case "action":
                found = react_call(content, names)
            case "python":
                found = python_calls(content, names)
            case _:
                found = calls_of_text(content, names)
        if not self._instructed:
            clear = found and all(
                isinstance(call, FoundCall) and self._accepts(call) for call in found
            )
            return found if clear else None
        if found:
            return found
        certain = kind in ("line", "tag") or (
            kind in ("json", "fence") and not complete and self._names_call(content)
        )
        certain = certain or (kind in ("json", "fence") and '"toolId"' in content)
        return [InvalidCall(content, problem)] if certain else None

    def _names_call(self, content: str) -> bool:
        """Whether a JSON value that is cut off was meant as a call."""
        found = _FIRST_KEY.search(content)
        if found is None:
            return False
        return found[1] in ("toolId", "tool_calls") or any(
            f'"{name}"' in content for name in self._names.names
        )
