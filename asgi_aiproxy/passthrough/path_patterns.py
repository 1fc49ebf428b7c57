"""Check request paths: none may leave the base URL, and only paths that match a pattern are served.

Paths stay percent-encoded as they were received; they are decoded only for the checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote, urlsplit

from asgi_aiproxy.errors import ConfigurationError, invalid

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ALLOWED = re.compile(r"[\x00-\x20\x7f#]")
_MAX_DEPTH = 4  # the maximum number of times that a path may be percent-encoded
# Most requests use a few paths; long paths are not cached.
_CACHED_PATHS = 1024
_MAX_CACHED_PATH = 200
_METHODS = {"GET": "(?:GET|HEAD)"}


def validate_path(path: str) -> str:
    """Return the path with bytes beyond ASCII percent-encoded.

    Raises APIError if a server might read it as a path outside the base URL: dot segments, however
    they are encoded and separated, and control characters.
    """
    return _checked(path) if len(path) <= _MAX_CACHED_PATH else _checked.__wrapped__(path)


@lru_cache(maxsize=_CACHED_PATHS)
def _checked(path: str) -> str:
    if _NOT_ALLOWED.search(path):
        raise invalid("The request's path contains invalid characters.")
    plain = path
    for _ in range(_MAX_DEPTH):
        for segment in re.split(r"[/\\]", plain):
            # Some servers read the text after a semicolon as parameters of the segment.
            if segment.partition(";")[0] in (".", ".."):
                raise invalid("The request's path contains dot segments.")
        if _CONTROL.search(plain):
            raise invalid("The request's path contains control characters.")
        decoded = unquote(plain, "latin-1")
        if decoded == plain:
            break
        plain = decoded
    else:
        raise invalid("The request's path is percent-encoded too many times.")
    return _ascii(path)


def validate_query(query: bytes) -> str:
    """Return the query with bytes beyond ASCII percent-encoded. Raises APIError for control
    characters.
    """
    text = query.decode("latin-1")
    if _NOT_ALLOWED.search(text):
        raise invalid("The request's query contains invalid characters.")
    return _ascii(text)


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    return quote_from_bytes(text.encode("latin-1"), safe=bytes(range(0x21, 0x7F)))


def relative_to_base(base: str, path: str) -> str:
    """Return `path` without the segments that repeat the end of the base URL.

    Clients give a vendor's paths from the root (`/v1/files`), from the base URL on (`/files`), or
    from a segment in between; all mean the same path.
    """
    for end in _suffixes(base):
        if path == end or path.startswith(end + "/"):
            return path[len(end) :]
    return path


@lru_cache(maxsize=_CACHED_PATHS)
def _suffixes(base: str) -> tuple[str, ...]:
    """Return the suffixes of a URL's path, the longest first."""
    segments = [segment for segment in urlsplit(base).path.split("/") if segment]
    return tuple("/" + "/".join(segments[at:]) for at in range(len(segments)))


class PathPatterns:
    """Patterns of the paths that are served.

    `/files` matches only that path, `/files/**` also all paths below it; `*` matches any characters
    within one segment. A pattern may begin with a method, to which it is then restricted: `GET
    /models/**`. Raises ConfigurationError for an invalid pattern.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names = tuple(patterns)
        self._match = re.compile(
            "|".join(f"({_regex(pattern)})" for pattern in self._names) or "(?!)"
        ).fullmatch
        self._cached_find = lru_cache(maxsize=_CACHED_PATHS)(self._find)

    def match_name(self, method: str, path: str) -> str | None:
        """Return the name of the pattern that allows this method and path; None if it is not
        served.
        """
        return (self._cached_find if len(path) <= _MAX_CACHED_PATH else self._find)(method, path)

    def _find(self, method: str, path: str) -> str | None:
        found = self._match(f"{method} {path}")
        if found is None or found.lastindex is None:
            return None
        name = self._names[found.lastindex - 1].rpartition(" ")[2]
        return name.removesuffix("/**").removeprefix("/")


def _regex(pattern: str) -> str:
    method, _, path = pattern.rpartition(" ")
    if not path.startswith("/") or (method and not method.isupper()):
        raise ConfigurationError(
            f"paths: {pattern!r} is not a valid pattern; valid are, for example, '/files/**' "
            "and 'GET /models/**'."
        )
    rest = path.endswith("/**")
    literal = re.escape(path.removesuffix("/**")).replace(r"\*", "[^/]*")
    return f"{_METHODS.get(method, method) or '[^ ]+'} {literal}{'(?:/.*)?' if rest else ''}"
