"""Paths on their way to an upstream: none leaves its base, and only those that are open pass.

Paths are percent-encoded here, as they came: what is decoded is decoded for looking at only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote, urlsplit

from asgi_aiproxy.errors import ConfigurationError, invalid

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ALLOWED = re.compile(r"[\x00-\x20\x7f#]")
_MAX_DEPTH = 4  # so often something may have been encoded
# Most requests are for the same few paths; long ones are not remembered.
_CACHED_PATHS = 1024
_MAX_CACHED_PATH = 200
_METHODS = {"GET": "(?:GET|HEAD)"}


def validate_path(path: str) -> str:
    """The same path, its bytes beyond ASCII encoded.

    Raises APIError if a server might read it as one outside: dot segments, however they are
    encoded and whichever slash parts them, and control characters.
    """
    return _checked(path) if len(path) <= _MAX_CACHED_PATH else _checked.__wrapped__(path)


@lru_cache(maxsize=_CACHED_PATHS)
def _checked(path: str) -> str:
    if _NOT_ALLOWED.search(path):
        raise invalid("The request's path holds characters that no path may hold.")
    plain = path
    for _ in range(_MAX_DEPTH):
        for segment in re.split(r"[/\\]", plain):
            # Some servers take what follows a semicolon for parameters of the segment.
            if segment.partition(";")[0] in (".", ".."):
                raise invalid("The request's path holds dot segments.")
        if _CONTROL.search(plain):
            raise invalid("The request's path holds control characters.")
        decoded = unquote(plain, "latin-1")
        if decoded == plain:
            break
        plain = decoded
    else:
        raise invalid("The request's path is encoded too often.")
    return _ascii(path)


def validate_query(query: bytes) -> str:
    """The same query, its bytes beyond ASCII encoded. Raises APIError on control characters."""
    text = query.decode("latin-1")
    if _NOT_ALLOWED.search(text):
        raise invalid("The request's query holds characters that no query may hold.")
    return _ascii(text)


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    return quote_from_bytes(text.encode("latin-1"), safe=bytes(range(0x21, 0x7F)))


def relative_to_base(base: str, path: str) -> str:
    """`path` without what it repeats of the end of the base URL.

    Clients name a vendor's paths from the root (`/v1/files`), from the base URL on (`/files`), or
    somewhere between; all mean the same. Segments are compared whole.
    """
    for end in _ends(base):
        if path == end or path.startswith(end + "/"):
            return path[len(end) :]
    return path


@lru_cache(maxsize=_CACHED_PATHS)
def _ends(base: str) -> tuple[str, ...]:
    """The ends of a URL's path, the longest first."""
    segments = [segment for segment in urlsplit(base).path.split("/") if segment]
    return tuple("/" + "/".join(segments[at:]) for at in range(len(segments)))


class PathPatterns:
    """Paths that are open, by patterns.

    `/files` is that very path, `/files/**` also all below it; `*` stands for anything within one
    segment. A pattern may begin with the one method that it is for: `GET /models/**`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names = tuple(patterns)
        self._match = re.compile(
            "|".join(f"({_regex(pattern)})" for pattern in self._names) or "(?!)"
        ).fullmatch
        self._cached_find = lru_cache(maxsize=_CACHED_PATHS)(self._find)

    def match_name(self, method: str, path: str) -> str | None:
        """What the pattern is called that opens this path to this method; None: it is closed."""
        return (self._cached_find if len(path) <= _MAX_CACHED_PATH else self._find)(method, path)

    def _find(self, method: str, path: str) -> str | None:
        found = self._match(f"{method} {path}")
        if found is None or found.lastindex is None:
            return None
        named = self._names[found.lastindex - 1].rpartition(" ")[2]
        return named.removesuffix("/**").removeprefix("/")


def _regex(pattern: str) -> str:
    method, _, path = pattern.rpartition(" ")
    if not path.startswith("/") or (method and not method.isupper()):
        raise ConfigurationError(
            f"paths: {pattern!r} is no pattern; one is like '/files/**' or 'GET /models/**'."
        )
    rest = path.endswith("/**")
    literal = re.escape(path.removesuffix("/**")).replace(r"\*", "[^/]*")
    return f"{_METHODS.get(method, method) or '[^ ]+'} {literal}{'(?:/.*)?' if rest else ''}"
