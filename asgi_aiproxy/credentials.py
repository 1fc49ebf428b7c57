"""Where callers put their credentials, and how a secret is kept out of what others are shown."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import parse_qs, unquote_plus

from asgi_aiproxy._asgi import RawHeaders, Scope, header


def find_credential(scope: Scope) -> str | None:
    """The caller's token, from wherever the clients of the vendors put it.

    `Authorization: Bearer`, `x-api-key`, `x-goog-api-key`, `api-key` (Azure's), or `?key=`; with a
    WebSocket also OpenAI's subprotocol `openai-insecure-api-key.<token>`.
    """
    found = _found(scope)
    # What is not printable is no token, and would break the header that it may travel on in.
    return found if found and found.isprintable() else None


def _found(scope: Scope) -> str | None:
    authorization = header(scope, b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key"):
        value = (header(scope, name) or "").strip()
        if value:
            return value
    query: bytes = scope.get("query_string", b"")
    if b"key=" in query:
        values = parse_qs(query.decode("latin-1")).get("key")
        if values:
            return values[0].strip()
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_SUBPROTOCOL):
            return str(offered.removeprefix(_SUBPROTOCOL))
    return None


# Where `InjectKey` says that the credential in the headers is its own: the id of the key.
INJECTED = "asgi_aiproxy.injected_key"

_HEADERS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
_OWN_KEY = b"x-provider-key"
# OpenAI's way for browsers, which can set no headers when they open a WebSocket.
_SUBPROTOCOL = "openai-insecure-api-key."
_SHORT = 8  # what is shorter may stand in a header by chance


def presented_credentials(scope: Scope) -> frozenset[str]:
    """All that a caller shows as its credential, wherever it is."""
    found = set()
    for name, value in scope["headers"]:
        if name in _HEADERS or name == _OWN_KEY:
            text = value.decode("latin-1").strip()
            found |= {text, text.partition(" ")[2].strip()}
    query = scope.get("query_string", b"").decode("latin-1")
    if "key=" in query:
        found.update(parse_qs(query).get("key", ()))
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_SUBPROTOCOL):
            found.add(offered.removeprefix(_SUBPROTOCOL))
    return frozenset(found - {""})


def strip_credentials(headers: RawHeaders, shown: frozenset[str]) -> RawHeaders:
    """Headers without those for credentials, and without any that repeats one of `shown`."""
    return [
        (name, value)
        for name, value in headers
        if name not in _HEADERS and name != _OWN_KEY and not _tells(value.decode("latin-1"), shown)
    ]


def strip_from_query(query: bytes, shown: frozenset[str]) -> bytes:
    """A query without the parameters that hold one of `shown`; the others stay as they are."""
    if not shown or not query:
        return query
    return b"&".join(
        part
        for part in query.split(b"&")
        if not _tells(unquote_plus(part.partition(b"=")[2].decode("latin-1")), shown)
    )


def strip_from_subprotocols(offered: Iterable[str], shown: frozenset[str]) -> list[str]:
    """The subprotocols that are none for credentials, and repeat none of `shown`."""
    return [
        each for each in offered if not each.startswith(_SUBPROTOCOL) and not _tells(each, shown)
    ]


def _tells(value: str, shown: frozenset[str]) -> bool:
    for secret in shown:  # noqa: SIM110 (this is asked for every header of every request)
        if secret == value or (len(secret) >= _SHORT and secret in value):
            return True
    return False


class SecretRedactor:
    """Takes a secret out of what others are shown, in whatever way it is written there.

    That is as it is, percent-encoded, escaped as in JSON, as HTML entities, in hexadecimal digits,
    and in base64, alone or within something longer (`Bearer ...`, `user:...`, RFC 7617); of one
    with colons also what follows them (a password). What takes its place is as long, so that
    lengths that were told stay true. See `blot`.
    """

    __slots__ = ("_encoded", "_find", "_forms", "_plain", "_word", "reach")

    def __init__(self, secret: str) -> None:
        self._plain = _sorted(_texts(secret))
        hexed = _sorted(form for text in self._plain for form in (text.hex(), text.hex().upper()))
        self._encoded = _sorted(form for text in self._plain for form in _base64(text))
        self._forms = [*self._plain, *hexed, *self._encoded]
        self._word = len(secret) < _SHORT
        self._find: re.Pattern[bytes] | None = None  # seldom needed, and takes long to make
        # The bytes that it may stand in.
        self.reach = len(self._plain[0]) * _LONGEST_ESCAPE + self._word

    def __repr__(self) -> str:
        return "Blot()"  # no secrets

    def data(self, data: bytes) -> bytes:
        """The same bytes, as many of them, without it."""
        if b"%" not in data and b"\\" not in data and b"&#" not in data:
            for form in self._forms:
                if form in data:
                    break
            else:
                return data
        if self._find is None:
            encoded = set(self._encoded)
            ways = [_written(form) for form in self._plain]
            ways += [_encoded(form) for form in self._forms if form in encoded]
            ways += [re.escape(form) for form in self._forms if form not in encoded]
            pattern = b"|".join(ways)
            if self._word:  # so short a one may be part of another word
                pattern = b"(?<![A-Za-z0-9_-])(?:%b)(?![A-Za-z0-9_-])" % pattern
            self._find = re.compile(pattern)
        return self._find.sub(
            lambda found: b"[key]".ljust(len(found[0]), b"*")[: len(found[0])], data
        )

    def text(self, text: str) -> str:
        """The same for text."""
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """The same headers, their values without it."""
        joined = b"\n".join([value for _, value in headers])
        if self.data(joined) == joined:
            return headers
        return [(name, self.data(value)) for name, value in headers]

    def pairs(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The same for headers that are text."""
        joined = "\n".join([value for _, value in headers])
        if self.text(joined) == joined:
            return headers
        return [(name, self.text(value)) for name, value in headers]


class StreamRedactor:
    """The same for bytes that come in pieces: what may be its beginning is held back."""

    def __init__(self, blot: SecretRedactor) -> None:
        self._blot = blot
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown now."""
        whole = self._blot.data(self._held + data)
        cut = max(0, len(whole) - self._blot.reach)
        self._held = whole[cut:]
        return whole[:cut]

    def close(self) -> bytes:
        """The rest."""
        rest, self._held = self._held, b""
        return rest


class BlotErrors:
    """The same for the events of a stream that tell of an error: the others pass as they are.

    `feed` is for pieces in which `marks` is true, and for those that follow one of which something
    is `held` back: the rest of an event.
    """

    __slots__ = ("_blot", "held")

    def __init__(self, blot: SecretRedactor) -> None:
        self._blot = blot
        self.held = b""

    @staticmethod
    def marks(data: bytes) -> bool:
        """Whether there may be an error in this piece."""
        return b"error" in data

    def feed(self, data: bytes) -> bytes:
        """What can be shown now: up to the end of the last line."""
        data, self.held = self.held + data, b""
        cut = data.rfind(b"\n") + 1
        if len(data) - cut <= _LONGEST_LINE and b"error" in data[cut:]:
            data, self.held = data[:cut], data[cut:]
        return self._blot.data(data)

    def close(self) -> bytes:
        """The rest."""
        rest, self.held = self.held, b""
        return self._blot.data(rest)


def may_quote(message: str | bytes) -> bool:
    """Whether a message of a WebSocket is looked into: short ones, and those that tell of errors.

    (Long ones are sound.)
    """
    if len(message) <= _SHORT_MESSAGE:
        return True
    return "error" in message if isinstance(message, str) else b"error" in message


@lru_cache(maxsize=4096)
def redactor_for(secret: str) -> SecretRedactor | None:
    """What takes this secret out; None if it is so short that it stands anywhere by chance.

    (One of four to seven characters is taken out where it is a word, if a digit makes it none of
    a language's.)
    """
    if len(secret) >= _SHORT:
        return SecretRedactor(secret)
    odd = len(secret) >= _SHORTEST and any(map(str.isdigit, secret))
    return SecretRedactor(secret) if odd else None


_LONGEST_ESCAPE = 9  # &#x00041;
_LONGEST_LINE = 64 * 1024
_SHORT_MESSAGE = 4096
_SHORTEST = 4


def _sorted(texts: Iterable[str]) -> list[bytes]:
    return sorted({text.encode("utf-8", "replace") for text in texts}, key=len, reverse=True)


def _texts(secret: str) -> Iterator[str]:
    """What tells the secret: itself, and of one with colons what follows them."""
    yield secret
    texts = [secret]
    try:
        texts.append(base64.b64decode(secret, validate=True).decode("ascii"))  # if for `Basic`
    except ValueError:
        pass
    for text in texts:
        rest = text
        while len(rest) >= _SHORT:
            yield rest
            rest = rest.partition(":")[2]


def _base64(secret: bytes) -> Iterator[str]:
    """What of its base64 is the same wherever it stands: digits at the ends are of its neighbours,
    too."""
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(bytes(before) + secret).decode()
        encoded = whole[skipped : (before + len(secret)) * 8 // 6]
        if len(encoded) >= min(_SHORT, len(secret)):
            yield encoded
            yield encoded.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")


def _written(form: bytes) -> bytes:
    """A pattern for all the ways to write these bytes."""
    ways = []
    for byte in form:
        code = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{byte:02x}")
        way = f"\\x{byte:02x}|%(?:25)?{code}|\\\\u00{code}|&#(?:[xX]0{{0,3}}{code}|0{{0,3}}{byte});"
        ways.append(f"(?:{way}|\\\\/)" if byte == 0x2F else f"(?:{way})")
    return "".join(ways).encode()


def _encoded(form: bytes) -> bytes:
    """A pattern for base64 and the digits beside it; its signs may be escaped."""
    found = re.escape(form).replace(b"/", b"(?:/|\\\\/|%(?:25)?2[fF])")
    found = found.replace(b"\\+", b"(?:\\+|%(?:25)?2[bB]|\\\\u002[bB])")
    return b"[A-Za-z0-9+/_-]{0,3}" + found + b"[A-Za-z0-9+/_-]{0,2}={0,2}"
