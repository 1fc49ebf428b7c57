"""Which headers pass a proxy, both ways.

Fields that are about one connection stay with it (RFC 9110, section 7.6.1), what a client shows as
its credential stays here, and what is the gateway's own business is not told to vendors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal, TypeVar

import msgspec

from asgi_aiproxy._asgi import RawHeaders, Scope
from asgi_aiproxy._control_headers import CONTROL_HEADERS, add_control_header
from asgi_aiproxy._headers import combine_values
from asgi_aiproxy.credentials import strip_credentials
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.providers.vendor_headers import (
    ACCOUNT_HEADERS,
    ADDRESS_HEADERS,
    UPLOAD_ADDRESS_HEADERS,
)
from asgi_aiproxy.upstream.base import TOKEN, Headers

Forwarded = Literal["set", "append", "keep", "drop"]
Pairs = list[tuple[str, str]]

# A client whose headers are longer is refused.
MAX_HEAD = 64 * 1024

_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
_HOP_BY_HOP |= {"upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization"}
# What a server has done already (RFC 9110, 10.1.1), or does for itself.
_SET_BY_SERVER = {"expect", "host", "content-length"}
# What only the server of this answer may say: servers add the first two by themselves, and the
# third would lead clients to a port of the host's that nobody listens on.
_OF_THIS_SERVER = {"date", "server", "alt-svc"}
_DROPPED_FROM_RESPONSES = _HOP_BY_HOP | _OF_THIS_SERVER | {"content-length"}
_WEBSOCKET_PREFIX = "sec-websocket-"

_FORWARDED = {"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip"}
_FORWARDED |= {"true-client-ip", "cf-connecting-ip", "fastly-client-ip", "x-original-url"}
_FORWARDED |= {"x-rewrite-url"}
_FORWARDED_PREFIX = "x-forwarded-"

# What the proxy itself reads, whether it passes or not.
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_LISTS_HEADERS = {"connection", "trailer"}  # other headers
_READ_IN_REQUESTS = {
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "upgrade",
    *_LISTS_HEADERS,
}
_READ_IN_REQUESTS |= {"content-encoding"}
_LOCATIONS = {"location", "content-location", *ADDRESS_HEADERS, *UPLOAD_ADDRESS_HEADERS}
_READ_IN_RESPONSES = {
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    *_LISTS_HEADERS,
}

# What would make another request of it than the one that was let pass.
_METHOD_OVERRIDES = {"x-http-method-override", "x-http-method", "x-method-override"}

_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])

_MAX_CACHED_NAMES = 4096
_IGNORED, _READ, _CREDENTIAL, _LOCATION, _CONTROL = range(5)
_Name = TypeVar("_Name", str, bytes)
_PassedName = TypeVar("_PassedName", str, bytes)


class _Roles(dict[_Name, tuple[_PassedName, int]]):
    """By the name of a header, what it passes as (nothing: it does not), and who reads it.

    There are few names: what was decided once is kept.
    """

    def __init__(self, decide: Callable[[_Name], tuple[_PassedName, int]]) -> None:
        super().__init__()
        self._decide: Callable[[_Name], tuple[_PassedName, int]] = decide

    def __missing__(self, name: _Name) -> tuple[_PassedName, int]:
        found = self._decide(name)
        if len(self) >= _MAX_CACHED_NAMES:
            self.clear()
        self[name] = found
        return found


@dataclass(frozen=True)
class HeaderPolicy:
    """What passes besides; names in lower case."""

    request: frozenset[str] = frozenset()  # not told to the upstream
    answer: frozenset[str] = frozenset()  # not told to the client
    answer_prefixes: tuple[str, ...] = ()
    forwarded: Forwarded = "set"
    encoded: bool = True  # whether the upstream may encode its answer as the client can take it

    @cached_property
    def filter_request_headers(self) -> _Roles[bytes, str]:
        """The headers of requests. Raises AmbiguousError for what is no name."""
        return _Roles(self._request_role)

    @cached_property
    def filter_response_headers(self) -> _Roles[str, bytes]:
        """The headers of answers. Raises APIError for what is no name."""
        return _Roles(self._response_role)

    def _request_role(self, name: bytes) -> tuple[str, int]:
        text = name.decode("latin-1").lower()
        if not TOKEN.fullmatch(text):
            raise AmbiguousFramingError("A header of the request is not valid.")
        if not strip_credentials([(name, b"")], frozenset()):
            return "", _CREDENTIAL
        stays = (
            text in _HOP_BY_HOP
            or text in _SET_BY_SERVER
            or text in self.request
            or text in CONTROL_HEADERS
            or text.startswith(_WEBSOCKET_PREFIX)
            or "_" in text  # CGI and WSGI take it for the same with dashes (RFC 3875, 4.1.18)
            or (self.forwarded in ("set", "drop") and _is_forwarding_header(text))
            or (text == "accept-encoding" and not self.encoded)
        )
        role = _READ if text in _READ_IN_REQUESTS else _IGNORED
        return "" if stays else text, _CONTROL if text in CONTROL_HEADERS else role

    def _response_role(self, name: str) -> tuple[bytes, int]:
        if not TOKEN.fullmatch(name):
            raise _invalid_response_header()
        stays = (
            name in _DROPPED_FROM_RESPONSES
            or name in self.answer
            or name.startswith((*self.answer_prefixes, _WEBSOCKET_PREFIX))
        )
        role = (
            _READ if name in _READ_IN_RESPONSES else _LOCATION if name in _LOCATIONS else _IGNORED
        )
        return b"" if stays else name.encode("latin-1"), role


# For an application of one's own: it is told who asks, and cookies are its own.
INTERNAL = HeaderPolicy()

# For a vendor: nothing of the client's network, of the host's session or of the browser's page is
# its business, and nothing that it says of its own site is true of this one.
VENDOR = HeaderPolicy(
    request=frozenset({"cookie", "origin", "referer"}) | _METHOD_OVERRIDES | ACCOUNT_HEADERS,
    answer=frozenset({"set-cookie", "strict-transport-security", "report-to", "nel"})
    | {"clear-site-data", "reporting-endpoints", "content-security-policy"},
    answer_prefixes=("access-control-",),
    forwarded="drop",
    encoded=False,  # usage could not be read, and it only holds streams back
)


class AmbiguousFramingError(APIError):
    """A request that two servers might read in two ways: what follows it on its connection may be a
    part of it, and so nothing that follows is to be heard (RFC 9112, 6.1 and 11.2).
    """

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.INVALID, message)


class RequestHeaders(msgspec.Struct, gc=False):
    """The headers of a request: those that pass, those that say something to the proxy itself,
    those that control the gateway (by their present name), and those for credentials."""

    passed: Pairs
    proxy_headers: dict[bytes, str]
    control: dict[str, str]
    credentials: RawHeaders
    length: int | None  # of the body, if the client says so


def read_request_headers(given: RawHeaders, policy: HeaderPolicy) -> RequestHeaders:
    """Part the headers of a request. Raises AmbiguousError on what two servers might read in two
    ways, APIError on headers that are too long, or that control the gateway and have two values.

    (Servers refuse most of that before it comes here; not all of them do.)
    """
    joined = b"".join(chain.from_iterable(given))
    if len(joined) != len(joined.translate(None, _CONTROLS)):
        raise AmbiguousFramingError("A header of the request is not valid.")
    if len(joined) + 4 * len(given) > MAX_HEAD:
        message = f"The request's headers are larger than {MAX_HEAD} bytes."
        raise APIError(ErrorKind.INVALID, message, status=431)
    passed: Pairs = []
    proxy_headers: dict[bytes, str] = {}
    control: dict[str, str] = {}
    credentials: RawHeaders = []
    roles = policy.filter_request_headers
    for pair in given:
        name, value = pair
        text, role = roles[name]
        if text:
            passed.append((text, value.decode("latin-1")))
        if role == _READ:
            if name in proxy_headers:
                if name in _FRAMING:
                    raise AmbiguousFramingError(
                        "The request says its host or its length several times."
                    )
                proxy_headers[name] = combine_values(proxy_headers[name], value.decode("latin-1"))
            else:
                proxy_headers[name] = value.decode("latin-1")
        elif role == _CREDENTIAL:
            credentials.append(pair)
        elif role == _CONTROL:
            add_control_header(control, name, value)
    length: int | None = None
    if b"content-length" in proxy_headers or b"transfer-encoding" in proxy_headers:
        length = _framed(proxy_headers)
    if b"connection" in proxy_headers or b"trailer" in proxy_headers:
        named = _named([proxy_headers.get(b"connection", ""), proxy_headers.get(b"trailer", "")])
        passed = [pair for pair in passed if pair[0] not in named]
    return RequestHeaders(passed, proxy_headers, control, credentials, length)


def _framed(proxy_headers: dict[bytes, str]) -> int | None:
    """The length of a body, if it is said. Raises AmbiguousError if its end is not sure."""
    length = proxy_headers.get(b"content-length")
    # (`isdigit` takes more for digits than there are in ASCII.)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
        raise AmbiguousFramingError("The request's content-length is no number.")
    encoding = proxy_headers.get(b"transfer-encoding")
    if encoding is None:
        return int(length) if length is not None else None
    if encoding.strip().lower() != "chunked":
        raise AmbiguousFramingError(
            "The request's transfer-encoding is not one that is known here."
        )
    if length is not None:
        raise AmbiguousFramingError("The request says its length in two ways.")
    return None


def read_response_headers(
    headers: Headers, policy: HeaderPolicy, relocated: Callable[[str, str], str] | None = None
) -> tuple[RawHeaders, dict[str, str]]:
    """What the client is sent of an answer's headers, without its length; and what they say to the
    proxy itself.

    `relocated` gives the addresses in it as the client finds them. Raises APIError on what no
    header can hold.
    """
    pairs: RawHeaders = []
    proxy_headers: dict[str, str] = {}
    roles = policy.filter_response_headers
    for name, value in headers:
        passed, role = roles[name]
        if role == _LOCATION and relocated is not None:
            value = relocated(name, value)
        elif role == _READ:
            proxy_headers[name] = (
                combine_values(proxy_headers[name], value) if name in proxy_headers else value
            )
        if passed:
            pairs.append((passed, value.encode("latin-1", "replace")))
    joined = b"".join(chain.from_iterable(pairs))
    if len(joined) != len(joined.translate(None, _CONTROLS)):
        raise _invalid_response_header()
    if "connection" in proxy_headers or "trailer" in proxy_headers:
        named = _named([proxy_headers.get("connection", ""), proxy_headers.get("trailer", "")])
        pairs = [pair for pair in pairs if pair[0].decode("latin-1") not in named]
    return pairs, proxy_headers


def _invalid_response_header() -> APIError:
    return APIError(ErrorKind.UPSTREAM, "The upstream's answer has a header that is none.")


def declared_length(proxy_headers: dict[str, str]) -> int | None:
    """How long an answer says that it is; chunks go before (RFC 9112, 6.3)."""
    if "transfer-encoding" in proxy_headers:
        return None
    found = proxy_headers.get("content-length", "")
    if not found.isdecimal():
        # (A transport has seen that all of several are the same.)
        found = found.partition(",")[0].strip()
    return int(found) if found.isdecimal() else None


def _named(values: Iterable[str]) -> set[str]:
    """What `connection` declares to be about this connection only, and `trailer` to be no header.

    (Some servers put the trailers of a request among its headers.)
    """
    options = {option.strip().lower() for value in values for option in value.split(",")}
    return options - {"close", "keep-alive", ""}


def _is_forwarding_header(name: str) -> bool:
    return name in _FORWARDED or name.startswith(_FORWARDED_PREFIX)


class ForwardedInfo(msgspec.Struct, frozen=True, gc=False):
    """What an upstream can be told of the way that a request came."""

    client: str = ""
    scheme: str = "http"
    host: str = ""
    prefix: str = ""

    @classmethod
    def of(cls, scope: Scope, host: str, prefix: str) -> ForwardedInfo:
        """Of a request to `host`, and to the app mounted at `prefix`."""
        client = scope.get("client")
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        return cls(client[0] if client else "", scheme, host, prefix)

    def added(self, headers: Pairs, policy: Literal["set", "append"]) -> Pairs:
        """The headers with those that tell of the way."""
        told = [
            ("x-forwarded-for", self.client),
            ("x-forwarded-proto", self.scheme),
            ("x-forwarded-host", self.host),
            ("x-forwarded-prefix", self.prefix),
        ]
        if policy == "append":  # else what came of that kind has not passed
            before = [value for name, value in headers if name == "x-forwarded-for"]
            if before and self.client:
                told[0] = ("x-forwarded-for", ", ".join([*before, self.client]))
                headers = [pair for pair in headers if pair[0] != "x-forwarded-for"]
            proxy_headers = {name for name, _ in headers}
            told = [pair for pair in told if pair[0] not in proxy_headers]
        return headers + [pair for pair in told if pair[1]]
