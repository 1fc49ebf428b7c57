"""Which headers pass a proxy, both ways.

Fields that are about one connection stay with it (RFC 9110, section 7.6.1), what a client shows as
its credential stays here, and what is the gateway's own business is not told to vendors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from asgi_aiproxy._asgi import RawHeaders, Scope
from asgi_aiproxy.errors import APIError, Kind, invalid
from asgi_aiproxy.upstream.base import Headers

Forwarded = Literal["set", "append", "keep", "drop"]

# A client whose headers are longer is refused.
MAX_HEAD = 64 * 1024

_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
_HOP |= {"upgrade", "http2-settings", "proxy-authenticate", "proxy-authorization"}
# What a server has done already (RFC 9110, 10.1.1), or does for itself.
_ANSWERED = {"expect", "host", "content-length"}
# What only the server of this answer may say: servers add the first two by themselves, and the
# third would lead clients to a port of the host's that nobody listens on.
_OF_THE_SERVER = {"date", "server", "alt-svc"}
_NOT_TOLD = _HOP | _OF_THE_SERVER | {"content-length"}
_SOCKET = "sec-websocket-"
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"host"})

_FORWARDED = {"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip"}
_FORWARDED |= {"true-client-ip", "cf-connecting-ip", "fastly-client-ip", "x-original-url"}
_FORWARDED |= {"x-rewrite-url"}
_FORWARDED_PREFIX = "x-forwarded-"

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")


_MOST_NAMES = 4096


@dataclass(frozen=True)
class Policy:
    """What passes besides; names in lower case."""

    request: frozenset[str] = frozenset()  # not told to the upstream
    answer: frozenset[str] = frozenset()  # not told to the client
    answer_prefixes: tuple[str, ...] = ()
    forwarded: Forwarded = "set"
    encoded: bool = True  # whether the upstream may encode its answer as the client can take it
    # What was decided before: there are few names.
    _known: dict[bytes, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def asks(self, name: bytes) -> str:
        """The name of a request's header as it is passed on; empty if it is not."""
        known = self._known.get(name)
        if known is None:
            text = name.decode("latin-1").lower()
            stays = (
                text in _HOP
                or text in _ANSWERED
                or text in self.request
                or text.startswith(_SOCKET)
                or (self.forwarded in ("set", "drop") and _tells_way(text))
                or (text == "accept-encoding" and not self.encoded)
            )
            if len(self._known) >= _MOST_NAMES:
                self._known.clear()
            known = self._known[name] = "" if stays else text
        return known

    def tells(self, name: str) -> bool:
        """Whether a header of an answer is passed on."""
        return not (
            name in _NOT_TOLD
            or name in self.answer
            or name.startswith((*self.answer_prefixes, _SOCKET))
        )


# For an application of one's own: it is told who asks, and cookies are its own.
INTERNAL = Policy()

# For a vendor: nothing of the client's network, of the host's session or of the browser's page is
# its business, and nothing that it says of its own site is true of this one.
VENDOR = Policy(
    request=frozenset({"cookie", "origin", "referer", "x-auth-id", "x-provider", "x-provider-key"})
    | {"x-session-affinity"},
    answer=frozenset({"set-cookie", "strict-transport-security", "report-to", "nel"})
    | {"clear-site-data", "reporting-endpoints", "content-security-policy"},
    answer_prefixes=("access-control-",),
    forwarded="drop",
    encoded=False,  # usage could not be read, and it only holds streams back
)


def check(scope: Scope) -> None:
    """Refuse what two servers might read in two ways. Raises APIError.

    Servers refuse most of this before it comes here; not all of them do.
    """
    size = 0
    framing = []
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 4
        if not _is_name(name) or not _VALUE.fullmatch(value):
            raise invalid("A header of the request is not valid.")
        if name in _FRAMING:
            framing.append(name)
            _check_framing(name, value)
    if size > MAX_HEAD:
        message = f"The request's headers are larger than {MAX_HEAD} bytes."
        raise APIError(Kind.INVALID, message, status=431)
    if len(set(framing)) < len(framing):
        raise invalid("The request says its host or its length several times.")
    if b"content-length" in framing and b"transfer-encoding" in framing:
        raise invalid("The request says its length in two ways.")
    method = scope.get("method", "GET")
    if not _METHOD.fullmatch(method):
        raise invalid("The request's method is none.")
    if method in ("CONNECT", "TRACE"):
        # The one is for tunnels, the other would show the client what it was not to see.
        raise APIError(Kind.INVALID, f"Not allowed here: {method}.", status=405)


@lru_cache(maxsize=_MOST_NAMES)
def _is_name(name: bytes) -> bool:
    return _TOKEN.fullmatch(name) is not None


def _check_framing(name: bytes, value: bytes) -> None:
    if name == b"content-length" and not (value.isdigit() and len(value) < 19):
        raise invalid("The request's content-length is no number.")
    if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
        raise invalid("The request's transfer-encoding is not one that is known here.")


def request_headers(
    given: RawHeaders, policy: Policy, *, of: Forwarding, defaults: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """What the upstream is sent of a client's headers, `given` without its credentials.

    `defaults` are added where the client has not said that itself.
    """
    kept = []
    hops: list[str] = []
    for name, value in given:
        if text := policy.asks(name):
            kept.append((text, value.decode("latin-1")))
        elif name in (b"connection", b"trailer"):
            hops.append(value.decode("latin-1"))
    if hops:
        named = _named(hops)
        if named:
            kept = [pair for pair in kept if pair[0] not in named]
    if not policy.encoded:
        kept.append(("accept-encoding", "identity"))
    if defaults:
        said = {name for name, _ in kept}
        kept += [pair for pair in defaults if pair[0] not in said]
    return of.added(kept, policy.forwarded)


def answer_headers(headers: Headers, policy: Policy, *, bodiless: bool) -> list[tuple[str, str]]:
    """What the client is sent of an answer's headers; `bodiless` answers lose their length."""
    passed = [pair for pair in headers if policy.tells(pair[0])]
    named = _named([value for name, value in headers if name in ("connection", "trailer")])
    if named:
        passed = [pair for pair in passed if pair[0] not in named]
    length = content_length(headers)
    if length is not None and not bodiless:
        passed.append(("content-length", str(length)))
    return passed


def content_length(headers: Headers) -> int | None:
    """How long an answer says that it is; chunks go before (RFC 9112, 6.3)."""
    found: str | None = None
    for name, value in headers:
        if name == "transfer-encoding":
            return None
        if name == "content-length":
            found = value.partition(",")[0].strip()  # a transport has seen that all are the same
    return int(found) if found is not None and found.isdecimal() else None


def raw(headers: Headers) -> RawHeaders:
    """As ASGI has them. Raises APIError on what no header can hold."""
    found = []
    for name, value in headers:
        pair = (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        if not _is_name(pair[0]) or not _VALUE.fullmatch(pair[1]):
            raise APIError(Kind.UPSTREAM, "The upstream's answer has a header that is none.")
        found.append(pair)
    return found


def _named(values: Iterable[str]) -> set[str]:
    """What `connection` declares to be about this connection only, and `trailer` to be no header.

    (Some servers put the trailers of a request among its headers.)
    """
    options = {option.strip().lower() for value in values for option in value.split(",")}
    return options - {"close", "keep-alive", ""}


def _tells_way(name: str) -> bool:
    return name in _FORWARDED or name.startswith(_FORWARDED_PREFIX)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What an upstream can be told of the way that a request came."""

    client: str = ""
    scheme: str = "http"
    host: str = ""
    prefix: str = ""

    @classmethod
    def of(cls, scope: Scope, prefix: str) -> Forwarding:
        """Of a request to the app mounted at `prefix`."""
        client = scope.get("client")
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        return cls(
            client=client[0] if client else "",
            scheme="https" if scope["scheme"] in ("https", "wss") else "http",
            host=host.decode("latin-1"),
            prefix=prefix,
        )

    def added(self, headers: list[tuple[str, str]], policy: Forwarded) -> list[tuple[str, str]]:
        """The headers with those that tell of the way."""
        if policy in ("keep", "drop"):
            return headers
        told = {
            "x-forwarded-for": self.client,
            "x-forwarded-proto": self.scheme,
            "x-forwarded-host": self.host,
            "x-forwarded-prefix": self.prefix,
        }
        before = [value for name, value in headers if name == "x-forwarded-for"]
        if before and self.client:
            told["x-forwarded-for"] = ", ".join([*before, self.client])
            headers = [pair for pair in headers if pair[0] != "x-forwarded-for"]
        said = {name for name, _ in headers}
        return headers + [(n, value) for n, value in told.items() if value and n not in said]
