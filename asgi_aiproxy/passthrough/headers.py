"""The headers that are forwarded by the proxy, in both directions.

Not forwarded are fields that concern one connection (RFC 9110, section 7.6.1), the client's
credentials for the gateway, and, to vendors, headers about the gateway and the client's network.
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
from asgi_aiproxy._request_id import HEADER, SENT_NAME
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

# The maximum size of a request's headers in bytes.
MAX_HEAD = 64 * 1024

_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
_HOP_BY_HOP |= {"upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization"}
# Processed by the server (RFC 9110, 10.1.1), or set by the transport.
_SET_BY_SERVER = {"expect", "host", "content-length"}
# Only valid from the server of this response: servers add the first two themselves, and `alt-svc`
# would lead clients to a port of the host on which no server listens.
_OF_THIS_SERVER = {"date", "server", "alt-svc"}
_DROPPED_FROM_RESPONSES = _HOP_BY_HOP | _OF_THIS_SERVER | {"content-length", HEADER.decode()}
_WEBSOCKET_PREFIX = "sec-websocket-"

_FORWARDED = {"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip"}
_FORWARDED |= {"true-client-ip", "cf-connecting-ip", "fastly-client-ip", "x-original-url"}
_FORWARDED |= {"x-rewrite-url"}
_FORWARDED_PREFIX = "x-forwarded-"

# Read by the proxy itself, whether or not they are forwarded.
_FRAMING = frozenset({"host", "content-length", "transfer-encoding"})
_LISTS_HEADERS = {"connection", "trailer"}  # contain names of other headers
_READ_IN_REQUESTS = {
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "upgrade",
    SENT_NAME,
    *_LISTS_HEADERS,
}
_LOCATIONS = {"location", "content-location", *ADDRESS_HEADERS, *UPLOAD_ADDRESS_HEADERS}
_READ_IN_RESPONSES = {
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    *_LISTS_HEADERS,
}

# They would make the vendor run another request than the one that was checked.
_METHOD_OVERRIDES = {"x-http-method-override", "x-http-method", "x-method-override"}

_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])

_MAX_CACHED_NAMES = 4096
_READ, _CREDENTIAL, _LOCATION, _CONTROL = 1, 2, 4, 8
_Name = TypeVar("_Name", str, bytes)
_PassedName = TypeVar("_PassedName", str, bytes)


class _Roles(dict[_Name, tuple[_PassedName, int, str]]):
    """Maps the name of a header to the name it is forwarded with (empty: not forwarded), its roles
    (a sum), and its name in lower case.

    Results are cached, because there are few different names.
    """

    def __init__(self, decide: Callable[[_Name], tuple[_PassedName, int, str]]) -> None:
        super().__init__()
        self._decide: Callable[[_Name], tuple[_PassedName, int, str]] = decide

    def __missing__(self, name: _Name) -> tuple[_PassedName, int, str]:
        found = self._decide(name)
        if len(self) >= _MAX_CACHED_NAMES:
            self.clear()
        self[name] = found
        return found


@dataclass(frozen=True)
class HeaderPolicy:
    """The headers that are not forwarded, besides those that never are; names in lower case."""

    request: frozenset[str] = frozenset()  # not sent to the upstream
    answer: frozenset[str] = frozenset()  # not sent to the client
    answer_prefixes: tuple[str, ...] = ()
    forwarded: Forwarded = "set"
    # Whether the upstream may compress its response if the client accepts that
    encoded: bool = True
    # Further request headers that the proxy reads, whether or not they are forwarded
    read: frozenset[str] = frozenset()

    @cached_property
    def filter_request_headers(self) -> _Roles[bytes, str]:
        """The roles of request headers. Raises AmbiguousFramingError for an invalid name."""
        return _Roles(self._request_role)

    @cached_property
    def filter_response_headers(self) -> _Roles[str, bytes]:
        """The roles of response headers. Raises APIError for an invalid name."""
        return _Roles(self._response_role)

    def _request_role(self, name: bytes) -> tuple[str, int, str]:
        text = name.decode("latin-1").lower()
        if not TOKEN.fullmatch(text):
            raise AmbiguousFramingError("A header of the request is not valid.")
        role = _READ if text in _READ_IN_REQUESTS or text in self.read else 0
        if not strip_credentials([(text.encode("latin-1"), b"")], frozenset()):
            return "", role | _CREDENTIAL, text
        stays = (
            text in _HOP_BY_HOP
            or text in _SET_BY_SERVER
            or text in self.request
            or text in CONTROL_HEADERS
            or text.startswith(_WEBSOCKET_PREFIX)
            or "_" in text  # CGI and WSGI read it as the same name with dashes (RFC 3875, 4.1.18)
            or (self.forwarded in ("set", "drop") and _is_forwarding_header(text))
            or (text == "accept-encoding" and not self.encoded)
        )
        return "" if stays else text, role | _CONTROL if text in CONTROL_HEADERS else role, text

    def _response_role(self, name: str) -> tuple[bytes, int, str]:
        if not TOKEN.fullmatch(name):
            raise _invalid_response_header()
        stays = (
            name in _DROPPED_FROM_RESPONSES
            or name in self.answer
            or name.startswith((*self.answer_prefixes, _WEBSOCKET_PREFIX))
        )
        role = _READ if name in _READ_IN_RESPONSES else _LOCATION if name in _LOCATIONS else 0
        return b"" if stays else name.encode("latin-1"), role, name


# For an internal application: it gets `x-forwarded-*` headers and cookies.
INTERNAL = HeaderPolicy()

# For a vendor: headers about the client's network, the host's session or the browser's page are not
# sent to it, and headers about the vendor's own site are not sent to the client.
VENDOR = HeaderPolicy(
    request=frozenset({"cookie", "origin", "referer"}) | _METHOD_OVERRIDES | ACCOUNT_HEADERS,
    answer=frozenset({"set-cookie", "strict-transport-security", "report-to", "nel"})
    | {"clear-site-data", "reporting-endpoints", "content-security-policy"},
    answer_prefixes=("access-control-",),
    forwarded="drop",
    # Usage could not be read from a compressed response, and compression delays streams
    encoded=False,
)


class AmbiguousFramingError(APIError):
    """A request that two servers might read in different ways.

    The bytes that follow it on its connection may be a part of it, so the connection must be closed
    (RFC 9112, 6.1 and 11.2).
    """

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.INVALID, message)


class RequestHeaders(msgspec.Struct, gc=False):
    """The headers of a request: those to forward, those that the proxy reads (among them those that
    control the gateway, by their present name), and credentials."""

    passed: Pairs
    read: dict[str, str]
    credentials: RawHeaders
    length: int | None  # of the body in bytes, if declared

    def __repr__(self) -> str:
        return "RequestHeaders(...)"  # some are secret


def read_request_headers(raw_headers: RawHeaders, policy: HeaderPolicy) -> RequestHeaders:
    """Sort the headers of a request by their roles.

    Raises AmbiguousFramingError for headers that two servers might read in different ways, and
    APIError for headers that are too long and for two values of a header that controls the
    gateway. (Most servers refuse such requests before, but not all of them.)
    """
    joined = b"".join(chain.from_iterable(raw_headers))
    if len(joined) != len(joined.translate(None, _CONTROLS)):
        raise AmbiguousFramingError("A header of the request is not valid.")
    if len(joined) + 4 * len(raw_headers) > MAX_HEAD:
        message = f"The request's headers are larger than {MAX_HEAD} bytes."
        raise APIError(ErrorKind.INVALID, message, status=431)
    passed: Pairs = []
    read: dict[str, str] = {}
    credentials: RawHeaders = []
    roles = policy.filter_request_headers
    for pair in raw_headers:
        passed_name, role, name = roles[pair[0]]
        value = pair[1].decode("latin-1")
        if passed_name:
            passed.append((passed_name, value))
        if not role:
            continue
        if role & _READ:
            read[name] = _repeated_header(name, read[name], value) if name in read else value
        if role & _CREDENTIAL:
            credentials.append(pair)
        elif role & _CONTROL:
            add_control_header(read, name.encode(), pair[1])
    length: int | None = None
    if "content-length" in read or "transfer-encoding" in read:
        length = _body_length(read)
    if "connection" in read or "trailer" in read:
        dropped = _listed_names([read.get("connection", ""), read.get("trailer", "")])
        passed = [pair for pair in passed if pair[0] not in dropped]
    return RequestHeaders(passed, read, credentials, length)


def _repeated_header(name: str, before: str, value: str) -> str:
    """Return the value of a repeated header. Raises AmbiguousFramingError if it must not be."""
    if name in _FRAMING:
        raise AmbiguousFramingError("The request has several host or content-length headers.")
    return combine_values(before, value)


def _body_length(read: dict[str, str]) -> int | None:
    """Return the declared length of a body. Raises AmbiguousFramingError if its end is
    ambiguous.
    """
    length = read.get("content-length")
    # (`isdigit` is also true for digits that are not ASCII.)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
        raise AmbiguousFramingError("The request's content-length is not a number.")
    encoding = read.get("transfer-encoding")
    if encoding is None:
        return int(length) if length is not None else None
    if encoding.strip().lower() != "chunked":
        raise AmbiguousFramingError("The request's transfer-encoding is not supported.")
    if length is not None:
        raise AmbiguousFramingError(
            "The request has both a content-length and a transfer-encoding."
        )
    return None


def read_response_headers(
    headers: Headers, policy: HeaderPolicy, relocated: Callable[[str, str], str] | None = None
) -> tuple[RawHeaders, dict[str, str]]:
    """Return the response headers for the client, without the length and the request id, and those
    that the proxy reads.

    `relocated` rewrites the addresses in a header. Raises APIError for an invalid header.
    """
    pairs: RawHeaders = []
    read: dict[str, str] = {}
    roles = policy.filter_response_headers
    for name, value in headers:
        passed_name, role, _ = roles[name]
        if role == _LOCATION and relocated is not None:
            value = relocated(name, value)
        elif role == _READ:
            read[name] = combine_values(read[name], value) if name in read else value
        if passed_name:
            pairs.append((passed_name, value.encode("latin-1", "replace")))
    joined = b"".join(chain.from_iterable(pairs))
    if len(joined) != len(joined.translate(None, _CONTROLS)):
        raise _invalid_response_header()
    if "connection" in read or "trailer" in read:
        dropped = _listed_names([read.get("connection", ""), read.get("trailer", "")])
        pairs = [pair for pair in pairs if pair[0].decode("latin-1") not in dropped]
    return pairs, read


def _invalid_response_header() -> APIError:
    return APIError(ErrorKind.UPSTREAM, "The upstream sent an invalid response header.")


def declared_length(read: dict[str, str]) -> int | None:
    """Return the declared length of a response in bytes; a transfer coding takes precedence (RFC
    9112, 6.3).
    """
    if "transfer-encoding" in read:
        return None
    value = read.get("content-length", "")
    if not value.isdecimal():
        # (The transport has checked that repeated values are equal.)
        value = value.partition(",")[0].strip()
    return int(value) if value.isdecimal() else None


def _listed_names(values: Iterable[str]) -> set[str]:
    """Return the header names listed in `connection`, which concern one connection, and in
    `trailer`.

    (Some servers put the trailers of a request among its headers.)
    """
    options = {option.strip().lower() for value in values for option in value.split(",")}
    return options - {"close", "keep-alive", ""}


def _is_forwarding_header(name: str) -> bool:
    return name in _FORWARDED or name.startswith(_FORWARDED_PREFIX)


class ForwardedInfo(msgspec.Struct, frozen=True, gc=False):
    """The values of the `x-forwarded-*` headers of a request."""

    client: str = ""
    scheme: str = "http"
    host: str = ""
    prefix: str = ""

    @classmethod
    def of(cls, scope: Scope, host: str, prefix: str) -> ForwardedInfo:
        """Return the values for a request to `host`, and to the app mounted at `prefix`."""
        client = scope.get("client")
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        return cls(client[0] if client else "", scheme, host, prefix)

    def added(self, headers: Pairs, policy: Literal["set", "append"]) -> Pairs:
        """Return the headers with `x-forwarded-*` added."""
        forwarded = [
            ("x-forwarded-for", self.client),
            ("x-forwarded-proto", self.scheme),
            ("x-forwarded-host", self.host),
            ("x-forwarded-prefix", self.prefix),
        ]
        if policy == "append":  # with "set", the client's own ones were removed
            before = [value for name, value in headers if name == "x-forwarded-for"]
            if before and self.client:
                forwarded[0] = ("x-forwarded-for", ", ".join([*before, self.client]))
                headers = [pair for pair in headers if pair[0] != "x-forwarded-for"]
            proxy_headers = {name for name, _ in headers}
            forwarded = [pair for pair in forwarded if pair[0] not in proxy_headers]
        return headers + [pair for pair in forwarded if pair[1]]
