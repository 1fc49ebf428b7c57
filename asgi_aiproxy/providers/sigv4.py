"""Requests signed as Amazon Web Services want them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit

import msgspec

from asgi_aiproxy.errors import APIError, ConfigurationError, Kind
from asgi_aiproxy.upstream.base import Outgoing

_ALGORITHM = "AWS4-HMAC-SHA256"
_OWN = frozenset({"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"})
_SIGNED = frozenset({"host", "content-type"})
_PORTS = {"http": 80, "https": 443}
_UNRESERVED = "-_.~"


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
                "SigV4 needs a region and a service: SigV4('eu-west-1', 's3')."
            )
        self._scope = f"{region}/{service}"
        self._region = region
        self._service = service
        self._clock = clock

    def __repr__(self) -> str:
        return f"SigV4({self._region!r}, {self._service!r})"

    def __call__(self, request: Outgoing, secret: str) -> Outgoing:
        """The request with its signature. Raises APIError if its body streams."""
        key_id, _, rest = secret.partition(":")
        key, _, session = rest.partition(":")
        if not key_id or not key:
            message = "A key of this provider is not '<access key id>:<secret access key>'."
            raise APIError(Kind.INTERNAL, message)
        body = request.body if request.body is not None else b""
        if not isinstance(body, bytes):
            raise APIError(Kind.INTERNAL, "A body that streams can not be signed.")
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        digest = hashlib.sha256(body).hexdigest()
        headers = [pair for pair in request.headers if pair[0] not in _OWN]
        headers.append(("x-amz-date", now))
        if session:
            headers.append(("x-amz-security-token", session))
        parts = urlsplit(request.url)
        signed = {"host": _authority(parts.scheme, parts.hostname or "", parts.port)}
        signed |= {n: v.strip() for n, v in headers if n.startswith("x-amz-") or n in _SIGNED}
        names = ";".join(sorted(signed))
        asked = "\n".join(
            [
                request.method,
                quote(parts.path or "/", safe="/" + _UNRESERVED),  # what is encoded, once more
                _query(parts.query),
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                digest,
            ]
        )
        scope = f"{now[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
        signing = f"AWS4{key}".encode()
        for part in scope.split("/"):
            signing = hmac.digest(signing, part.encode(), "sha256")
        signature = hmac.digest(signing, text.encode(), "sha256").hex()
        told = f"{_ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}"
        headers.append(("authorization", f"{told}, Signature={signature}"))
        return msgspec.structs.replace(request, headers=headers)


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
