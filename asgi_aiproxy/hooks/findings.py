"""Finders: functions that find what a guard is to block or mask in a text. Pure.

A finder takes a text and returns its findings in order, without overlaps. What a finder can find
must be no longer than the window of the guard that uses it, so that none of it was sent when its
end arrives. The patterns are linear: they have no nested repetition.
"""

from __future__ import annotations

import inspect
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator

import msgspec

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.providers.key_formats import KEY_FORMATS


class TextMatch(msgspec.Struct, frozen=True):
    """A stretch of a text, `start` to `end`, and what it is (`kind`, for people)."""

    start: int
    end: int
    kind: str


TextFinder = Callable[[str], Iterable[TextMatch]]

_SECRET = re.compile(
    "|".join(f"(?P<k{n}>(?<![A-Za-z0-9]){pattern})" for n, (_, pattern) in enumerate(KEY_FORMATS))
)

_EMAIL = r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"
_CARD = r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])"
_IP = (
    r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])"
)
_PHONE = (
    r"(?<![\w+])\+\d(?:[ ()./-]{0,2}\d){7,14}(?!\d)"
    r"|(?<![\w-])\(?\d{3}\)?[ -]\d{3}[ -]\d{4}(?![\w-])"
)
_KINDS = {"email": _EMAIL, "card": _CARD, "ip": _IP, "phone": _PHONE}


_MIN_EXACT = 8  # characters


def check_finder(guard: str, find: object) -> None:
    """Raise ConfigurationError if `find` is not a finder; it is tried with an empty text."""
    if not callable(find) or inspect.iscoroutinefunction(find):
        kind = "an async function" if callable(find) else type(find).__name__
        raise ConfigurationError(
            f"{guard}: find is a function that returns TextMatch objects, not {kind}. What must "
            "be awaited is a judge: JudgeGuard(...)."
        )
    try:
        found = list(find(""))
    except Exception as error:
        raise ConfigurationError(
            f"{guard}: find fails for an empty text: {error!r}. It takes a text and returns "
            "TextMatch(start, end, kind) for each finding."
        ) from error
    if not all(isinstance(each, TextMatch) for each in found):
        raise ConfigurationError(f"{guard}: find must return TextMatch objects, got {found[:1]!r}.")


def find_secrets(text: str) -> Iterator[TextMatch]:
    """Find API keys and tokens in `text`, in the formats that their vendors document, and private
    keys."""
    for found in _SECRET.finditer(text):
        kind = KEY_FORMATS[int((found.lastgroup or "k0")[1:])][0]
        yield TextMatch(found.start(), found.end(), kind)


def find_personal_data(*kinds: str) -> TextFinder:
    """A finder of e-mail addresses, credit card numbers (with a valid check digit), IP addresses
    and phone numbers.

    `kinds` are some of `email`, `card`, `ip` and `phone`; all of them by default. Raises
    ConfigurationError for another one.
    """
    unknown = sorted(set(kinds) - _KINDS.keys())
    if unknown:
        raise ConfigurationError(
            f"find_personal_data: invalid kinds {unknown}. There are: {', '.join(_KINDS)}."
        )
    wanted = {kind: _KINDS[kind] for kind in _KINDS if not kinds or kind in kinds}
    pattern = re.compile(
        "|".join(f"(?P<{kind}>{expression})" for kind, expression in wanted.items())
    )

    def find(text: str) -> Iterator[TextMatch]:
        for found in pattern.finditer(text):
            kind = found.lastgroup or ""
            if kind == "card" and not _is_card(found[0]):
                continue
            if kind == "ip" and not _is_ip(found[0]):
                continue
            yield TextMatch(found.start(), found.end(), kind)

    return find


def find_words(words: Collection[str], *, kind: str = "word") -> TextFinder:
    """A finder of whole words and phrases, in any case; `kind` is what errors and masks call them.

    Raises ConfigurationError without any.
    """
    if isinstance(words, str) or not words or not all(words):
        raise ConfigurationError("find_words takes a list of words, none of which is empty.")
    longest = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", re.IGNORECASE)
    return lambda text: (TextMatch(f.start(), f.end(), kind) for f in pattern.finditer(text))


def find_exact(texts: Callable[[], Iterable[str]], *, kind: str = "API key") -> TextFinder:
    """A finder of the texts that `texts` returns each time, such as the keys of a pool:
    `find_exact(lambda: [key.secret for key in pool.keys.values()])`.

    `kind` is what errors and masks call them. Texts of less than 8 characters are not looked for.
    """
    known: tuple[frozenset[str], re.Pattern[str] | None] = (frozenset(), None)

    def find(text: str) -> Iterator[TextMatch]:
        nonlocal known
        wanted = frozenset(each for each in texts() if len(each) >= _MIN_EXACT)
        if wanted != known[0]:
            longest = sorted(wanted, key=len, reverse=True)
            known = wanted, re.compile("|".join(map(re.escape, longest))) if longest else None
        pattern = known[1]
        if pattern is not None:
            for found in pattern.finditer(text):
                yield TextMatch(found.start(), found.end(), kind)

    return find


def regex_finder(pattern: str, *, kind: str = "pattern") -> TextFinder:
    """A finder of `pattern`, a regular expression of `re`; `kind` is what errors and masks call it.

    Raises ConfigurationError if it is invalid, or matches an empty text.

    Expressions with nested repetition, as `(a+)+`, can take very long on long texts: do not take
    them from callers.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"regex_finder: {pattern!r} is invalid: {error}.") from error
    if compiled.match(""):
        raise ConfigurationError(f"regex_finder: {pattern!r} matches an empty text.")
    return lambda text: (TextMatch(f.start(), f.end(), kind) for f in compiled.finditer(text))


def _is_card(text: str) -> bool:
    """Whether digits have a valid check digit (ISO/IEC 7812-1, the Luhn algorithm)."""
    total = 0
    for place, digit in enumerate(reversed([int(c) for c in text if c.isdecimal()])):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
