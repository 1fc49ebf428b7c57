"""Request signing for Amazon Web Services (Signature Version 4).

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

S3 is not supported: it has different rules (paths are not normalized, and only encoded once).
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
_REPLACED_HEADERS = frozenset(
    {"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}
)
_SIGNED_HEADERS = frozenset({"host", "content-type"})
_PORTS = {"http": 80, "https": 443}
_UNRESERVED = "-_.~"
_SPACES = re.compile("[ \t]+")


class SigV4:
    """An `auth` for providers on AWS: signs each request, including its body.

    The secret of a key is `<access key id>:<secret access key>`, optionally followed by
    `:<session token>`. `clock` returns Unix seconds. Raises ConfigurationError if the region or the
    service is missing, or the service is S3.

    ::

        Provider(name="bedrock", dialect=ANTHROPIC_MESSAGES, auth=SigV4("us-east-1", "bedrock"),
                 base_url="https://bedrock-runtime.us-east-1.amazonaws.com")
    """

    reads_body: ClassVar[bool] = True  # proxies must buffer the body before sending it

    def __init__(
        self, region: str, service: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        if not region or not service:
            raise ConfigurationError(
                "SigV4 needs a region and a service: SigV4('eu-west-1', 'bedrock')."
            )
        if service.lower().startswith("s3"):
            raise ConfigurationError(
                "SigV4 does not support S3, whose requests are signed differently."
            )
        self._scope = f"{region}/{service}"
        self._region = region
        self._service = service
        self._clock = clock

    def __repr__(self) -> str:
        return f"SigV4({self._region!r}, {self._service!r})"

    def __call__(self, request: UpstreamRequest, secret: str) -> UpstreamRequest:
        """The request with its signature.

        Raises APIError if the body is a stream or the secret has another form.
        """
        key_id, _, rest = secret.partition(":")
        key, _, session = rest.partition(":")
        if not key_id or not key:
            message = "A key of this provider must be '<access key id>:<secret access key>'."
            raise APIError(ErrorKind.INTERNAL, message)
        body = request.body if request.body is not None else b""
        if not isinstance(body, bytes):
            raise APIError(ErrorKind.INTERNAL, "A streamed body cannot be signed.")
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        digest = hashlib.sha256(body).hexdigest()
        headers = [pair for pair in request.headers if pair[0] not in _REPLACED_HEADERS]
        headers.append(("x-amz-date", now))
        if session:
            headers.append(("x-amz-security-token", session))
        url, question, query = request.url.partition("?")
        # AWS reads a plus sign as a space when it checks the signature; others may not.
        query = query.replace("+", "%20")
        parts = urlsplit(url)
        signed = _signed(headers, _authority(parts.scheme, parts.hostname or "", parts.port))
        names = ";".join(sorted(signed))
        canonical_request = "\n".join(
            [
                request.method,
                quote(_path(parts.path), safe="/" + _UNRESERVED),  # encoded twice
                _query(query.partition("#")[0]),
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                digest,
            ]
        )
        scope = f"{now[:8]}/{self._region}/{self._service}/aws4_request"
        text = (
            f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(_bytes(canonical_request)).hexdigest()}"
        )
        signing = f"AWS4{key}".encode()
        for part in scope.split("/"):
            signing = hmac.digest(signing, part.encode(), "sha256")
        signature = hmac.digest(signing, text.encode(), "sha256").hex()
        fields = f"{_ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}"
        headers.append(("authorization", f"{fields}, Signature={signature}"))
        return msgspec.structs.replace(request, url=f"{url}{question}{query}", headers=headers)


def _signed(headers: Headers, authority: str) -> dict[str, str]:
    """The headers to sign: repeated ones joined, without superfluous white space."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("x-amz-") or name in _SIGNED_HEADERS:
            text = _SPACES.sub(" ", value.strip(" \t"))
            found[name] = f"{found[name]},{text}" if name in found else text
    found.setdefault("host", authority)
    return found


def _bytes(text: str) -> bytes:
    """The bytes that are sent: Latin-1 if possible, else UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _path(path: str) -> str:
    """A path without empty segments, `.` and `..` (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _authority(scheme: str, host: str, port: int | None) -> str:
    """The header `host` as the transport sends it."""
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
    """The canonical percent-encoding of text that may already be encoded."""
    return quote(unquote(text), safe=_UNRESERVED)
