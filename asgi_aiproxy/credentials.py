"""Where callers put their credentials, and how secrets are removed from data for others."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from asgi_aiproxy._asgi import RawHeaders, Scope, header
from asgi_aiproxy._control_headers import (
    KEY,
    KEY_HEADERS,
    PROVIDER_KEY,
    PROVIDER_KEY_HEADERS,
    control_header,
)
from asgi_aiproxy.principal import SCOPE_KEY, Principal


def find_credential(scope: Scope) -> str | None:
    """Return the caller's token from the places where clients of the vendors put it, or None.

    `Authorization: Bearer`, `x-api-key`, `x-goog-api-key`, `api-key` (Azure's), or `?key=`; with a
    WebSocket also OpenAI's subprotocol `openai-insecure-api-key.<token>`.
    """
    found = _found(scope)
    # A token must be printable, as it may be sent on in a header.
    return found if found and found.isprintable() else None


def caller_key(scope: Scope) -> str:
    """Return the caller's own API key for the provider; empty if it has none.

    It is in `aiproxy-provider-key`, or where clients put their credential if nothing has
    authenticated the caller by that. Raises APIError if the request has two values for it.
    """
    key = control_header(scope["headers"], PROVIDER_KEY)
    if not key and SCOPE_KEY not in scope:
        key = find_credential(scope) or ""
    return key


def with_principal(scope: Scope, principal: Principal) -> dict[str, Any]:
    """Return the scope with its caller, and with the key that the caller must use."""
    result = {**scope, SCOPE_KEY: principal}
    if principal.key_id or not principal.may_choose_key:
        result["headers"] = with_key_header(scope["headers"], principal.key_id)
    return result


def with_key_header(
    headers: Iterable[tuple[bytes, bytes]], key_id: str
) -> list[tuple[bytes, bytes]]:
    """Return the headers with `aiproxy-key` set to this key, or without it if there is no key."""
    kept = [pair for pair in headers if pair[0] not in KEY_HEADERS]
    return [*kept, (KEY.encode(), key_id.encode("latin-1", "replace"))] if key_id else kept


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


# Scope key set by `InjectKey`: the id of the pool key that is in the headers.
INJECTED = "asgi_aiproxy.injected_key"

# The headers with the credentials of callers, and of browsers.
CREDENTIAL_HEADERS = (
    frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
    | frozenset({b"proxy-authorization", b"cookie"})
    | PROVIDER_KEY_HEADERS
)
_HEADERS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
# OpenAI's way for browsers, which cannot set headers when they open a WebSocket.
_SUBPROTOCOL = "openai-insecure-api-key."
_MIN_SECRET_LENGTH = 8  # shorter strings may be part of a value by chance


def presented_credentials(scope: Scope) -> frozenset[str]:
    """Return all credentials that a caller presents, wherever they are."""
    found = set()
    for name, value in scope["headers"]:
        if name in _HEADERS or name in PROVIDER_KEY_HEADERS:
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
    """Return the headers without credential headers and values that contain one of `shown`."""
    return [
        (name, value)
        for name, value in headers
        if name not in _HEADERS
        and name not in PROVIDER_KEY_HEADERS
        and not _contains(value.decode("latin-1"), shown)
    ]


def strip_from_query(query: bytes, shown: frozenset[str]) -> bytes:
    """Return the query without parameters that contain one of `shown`; others are unchanged."""
    if not shown or not query:
        return query
    return b"&".join(
        part
        for part in query.split(b"&")
        if not _contains(unquote_plus(part.partition(b"=")[2].decode("latin-1")), shown)
    )


def strip_from_subprotocols(offered: Iterable[str], shown: frozenset[str]) -> list[str]:
    """Return the subprotocols that hold no credential and contain none of `shown`."""
    return [
        name for name in offered if not name.startswith(_SUBPROTOCOL) and not _contains(name, shown)
    ]


def _contains(value: str, shown: frozenset[str]) -> bool:
    for secret in shown:
        if secret == value or (len(secret) >= _MIN_SECRET_LENGTH and secret in value):
            return True
    return False


class SecretRedactor:
    """Removes a secret from data for others, in any encoding that a provider may quote it in.

    These are: as it is, percent-encoded, escaped as in JSON, as HTML entities, in hexadecimal, and
    in base64, alone or within a longer value (`Bearer ...`, `user:...`, RFC 7617). If the secret
    has colons, also the parts after them (a password). The replacement has the same length, so
    that a content length stays correct. Made by `redactor_for`.
    """

    __slots__ = ("_encoded", "_find", "_forms", "_plain", "_word", "reach")

    def __init__(self, secret: str) -> None:
        self._plain = _sorted(_texts(secret))
        hexed = _sorted(form for text in self._plain for form in (text.hex(), text.hex().upper()))
        self._encoded = _sorted(form for text in self._plain for form in _base64(text))
        self._forms = [*self._plain, *hexed, *self._encoded]
        self._word = len(secret) < _MIN_SECRET_LENGTH
        self._find: re.Pattern[bytes] | None = None  # compiled when first needed
        # The length in bytes of its longest form.
        self.reach = len(self._plain[0]) * _LONGEST_ESCAPE + self._word

    def __repr__(self) -> str:
        return "SecretRedactor()"  # without the secret

    def data(self, data: bytes) -> bytes:
        """Return the bytes without the secret, in the same length."""
        if data.find(b"%") < 0 and data.find(b"\\") < 0 and data.find(b"&#") < 0:
            for form in self._forms:
                if data.find(form) >= 0:
                    break
            else:
                return data
        if self._find is None:
            encoded = set(self._encoded)
            ways = [_escaped_pattern(form) for form in self._plain]
            ways += [_base64_pattern(form) for form in self._forms if form in encoded]
            ways += [re.escape(form) for form in self._forms if form not in encoded]
            pattern = b"|".join(ways)
            if self._word:  # a short one may be part of another word
                pattern = b"(?<![A-Za-z0-9_-])(?:%b)(?![A-Za-z0-9_-])" % pattern
            self._find = re.compile(pattern)
        return self._find.sub(
            lambda found: b"[key]".ljust(len(found[0]), b"*")[: len(found[0])], data
        )

    def text(self, text: str) -> str:
        """Return the text without the secret."""
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """Return the headers without the secret in their values."""
        joined = b"\n".join([value for _, value in headers])
        if self.data(joined) == joined:
            return headers
        return [(name, self.data(value)) for name, value in headers]

    def pairs(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return headers of type str without the secret in their values."""
        joined = "\n".join([value for _, value in headers])
        if self.text(joined) == joined:
            return headers
        return [(name, self.text(value)) for name, value in headers]


class StreamRedactor:
    """Removes a secret from bytes in pieces; holds back what may be the beginning of it."""

    def __init__(self, redactor: SecretRedactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that cannot be part of the secret."""
        whole = self._redactor.data(self._held + data)
        cut = max(0, len(whole) - self._redactor.reach)
        self._held = whole[cut:]
        return whole[:cut]

    def close(self) -> bytes:
        """Return what was held back."""
        rest, self._held = self._held, b""
        return rest


class BlotErrors:
    """Removes a secret from the error events of a stream; other events are not searched.

    Call `feed` for pieces for which `marks` is true, and while part of an event is `held` back.
    """

    __slots__ = ("_redactor", "held")

    def __init__(self, redactor: SecretRedactor) -> None:
        self._redactor = redactor
        self.held = b""

    @staticmethod
    def marks(data: bytes) -> bool:
        """Return whether a piece may hold an error event."""
        return data.rfind(b"error") >= 0  # twice as fast in JSON as `in`

    def feed(self, data: bytes) -> bytes:
        """Return the bytes up to the end of the last line."""
        data, self.held = self.held + data, b""
        cut = data.rfind(b"\n") + 1
        if len(data) - cut <= _LONGEST_LINE and b"error" in data[cut:]:
            data, self.held = data[:cut], data[cut:]
        return self._redactor.data(data)

    def close(self) -> bytes:
        """Return what was held back."""
        rest, self.held = self.held, b""
        return self._redactor.data(rest)


def may_quote(message: str | bytes) -> bool:
    """Return whether a WebSocket message may quote a secret and must be searched.

    These are short messages and errors; long ones are audio.
    """
    if len(message) <= _MAX_INSPECTED_MESSAGE:
        return True
    return "error" in message if isinstance(message, str) else b"error" in message


@lru_cache(maxsize=4096)
def redactor_for(secret: str) -> SecretRedactor | None:
    """Return the redactor for a secret; None if it is too short to be searched for.

    A secret of four to seven characters is removed where it is a whole word, if it has a digit.
    """
    if len(secret) >= _MIN_SECRET_LENGTH:
        return SecretRedactor(secret)
    searchable = len(secret) >= _MIN_WORD_LENGTH and any(map(str.isdigit, secret))
    return SecretRedactor(secret) if searchable else None


_LONGEST_ESCAPE = 9  # &#x00041;
_LONGEST_LINE = 64 * 1024
_MAX_INSPECTED_MESSAGE = 4096
_MIN_WORD_LENGTH = 4


def _sorted(texts: Iterable[str]) -> list[bytes]:
    return sorted({text.encode("utf-8", "replace") for text in texts}, key=len, reverse=True)


def _texts(secret: str) -> Iterator[str]:
    """The secret, and if it has colons, the parts after them."""
    yield secret
    texts = [secret]
    try:
        texts.append(base64.b64decode(secret, validate=True).decode("ascii"))  # for `Basic`
    except ValueError:
        pass
    for text in texts:
        rest = text
        while len(rest) >= _MIN_SECRET_LENGTH:
            yield rest
            rest = rest.partition(":")[2]


def _base64(secret: bytes) -> Iterator[str]:
    """The base64 digits that are the same wherever the secret is within a longer value."""
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(bytes(before) + secret).decode()
        encoded = whole[skipped : (before + len(secret)) * 8 // 6]
        if len(encoded) >= min(_MIN_SECRET_LENGTH, len(secret)):
            yield encoded
            yield encoded.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")


def _escaped_pattern(form: bytes) -> bytes:
    """A pattern for all escapes of these bytes."""
    ways = []
    for byte in form:
        code = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{byte:02x}")
        way = f"\\x{byte:02x}|%(?:25)?{code}|\\\\u00{code}|&#(?:[xX]0{{0,3}}{code}|0{{0,3}}{byte});"
        ways.append(f"(?:{way}|\\\\/)" if byte == 0x2F else f"(?:{way})")
    return "".join(ways).encode()


def _base64_pattern(form: bytes) -> bytes:
    """A pattern for base64 and the digits next to it; `+` and `/` may be escaped."""
    found = re.escape(form).replace(b"/", b"(?:/|\\\\/|%(?:25)?2[fF])")
    found = found.replace(b"\\+", b"(?:\\+|%(?:25)?2[bB]|\\\\u002[bB])")
    return b"[A-Za-z0-9+/_-]{0,3}" + found + b"[A-Za-z0-9+/_-]{0,2}={0,2}"
