"""Requests signed as Amazon Web Services want them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

S3 has rules of its own (its paths are signed as they are, and encoded once): it is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit

import msgspec

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream.base import Headers, UpstreamRequest

_ALGORITHM = "AWS4-HMAC-SHA256"
_OWN = frozenset({"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"})
_SIGNED = frozenset({"host", "content-type"})
_PORTS = {"http": 80, "https": 443}
_UNRESERVED = "-_.~"
_SPACES = re.compile("[ \t]+")


class SigV4:
    """An `auth` of providers: signs a request, its body included.

    A key's secret is `<access key id>:<secret access key>`, and `:<session token>` if there is one.

    ::

        Provider(name="bedrock", dialect=ANTHROPIC_MESSAGES, auth=SigV4("us-east-1", "bedrock"),
                 base_url="https://bedrock-runtime.us-east-1.amazonaws.com")
    """

    reads_body: ClassVar[bool] = True  # a proxy has to hold a body before it can be sent

    def __init__(
        self, region: str, service: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        if not region or not service:
            raise ConfigurationError(
                "SigV4 needs a region and a service: SigV4('eu-west-1', 'bedrock')."
            )
        if service.lower().startswith("s3"):
            raise ConfigurationError(
                "SigV4 is not for S3, which wants its requests signed in another way."
            )
        self._scope = f"{region}/{service}"
        self._region = region
        self._service = service
        self._clock = clock

    def __repr__(self) -> str:
        return f"SigV4({self._region!r}, {self._service!r})"

    def __call__(self, request: UpstreamRequest, secret: str) -> UpstreamRequest:
        """The request with its signature. Raises APIError if its body streams."""
        key_id, _, rest = secret.partition(":")
        key, _, session = rest.partition(":")
        if not key_id or not key:
            message = "A key of this provider is not '<access key id>:<secret access key>'."
            raise APIError(ErrorKind.INTERNAL, message)
        body = request.body if request.body is not None else b""
        if not isinstance(body, bytes):
            raise APIError(ErrorKind.INTERNAL, "A body that streams can not be signed.")
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        digest = hashlib.sha256(body).hexdigest()
        headers = [pair for pair in request.headers if pair[0] not in _OWN]
        headers.append(("x-amz-date", now))
        if session:
            headers.append(("x-amz-security-token", session))
        url, question, query = request.url.partition("?")
        # A plus sign stands for a space to those who check the signature, not to all others.
        query = query.replace("+", "%20")
        parts = urlsplit(url)
        signed = _signed(headers, _authority(parts.scheme, parts.hostname or "", parts.port))
        names = ";".join(sorted(signed))
        asked = "\n".join(
            [
                request.method,
                quote(_path(parts.path), safe="/" + _UNRESERVED),  # what is encoded, once more
                _query(query.partition("#")[0]),
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                digest,
            ]
        )
        scope = f"{now[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(_bytes(asked)).hexdigest()}"
        signing = f"AWS4{key}".encode()
        for part in scope.split("/"):
            signing = hmac.digest(signing, part.encode(), "sha256")
        signature = hmac.digest(signing, text.encode(), "sha256").hex()
        told = f"{_ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}"
        headers.append(("authorization", f"{told}, Signature={signature}"))
        return msgspec.structs.replace(request, url=f"{url}{question}{query}", headers=headers)


def _signed(headers: Headers, authority: str) -> dict[str, str]:
    """The headers that are signed: repeated ones in one, without superfluous white space."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("x-amz-") or name in _SIGNED:
            text = _SPACES.sub(" ", value.strip(" \t"))
            found[name] = f"{found[name]},{text}" if name in found else text
    found.setdefault("host", authority)
    return found


def _bytes(text: str) -> bytes:
    """As it is sent: what came in as bytes goes out as the same bytes."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _path(path: str) -> str:
    """A path without empty segments, `.` and `..` (RFC 3986, 5.2.4), as all but S3 sign it."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _authority(scheme: str, host: str, port: int | None) -> str:
    """The header `host` as a transport sends it."""
    named = f"[{host}]" if ":" in host else host
    return named if port is None or port == _PORTS.get(scheme) else f"{named}:{port}"


def _query(query: str) -> str:
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if part:
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    """In the one way that is signed, however it was encoded."""
    return quote(unquote(text), safe=_UNRESERVED)
