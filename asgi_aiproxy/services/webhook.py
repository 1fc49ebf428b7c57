"""`BudgetWebhook`: budget alerts as signed HTTP requests, repeated until they are accepted.

Theory of operation. A request has the format of Standard Webhooks
(https://www.standardwebhooks.com): the headers `webhook-id`, `webhook-timestamp` and
`webhook-signature`, which is `v1,` and the base64 of an HMAC-SHA256 over `id.timestamp.body`. The
id stays the same when a request is repeated, so the receiver can recognize it. An answer with
status 2xx accepts it; anything else, or none within 10 seconds, is tried again after a pause of up
to 2 seconds, for `retry_seconds` after the alert; then it is dropped and logged.

The URL may only lead to public addresses, unless the operator allows their networks; that is
checked before each request. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from random import getrandbits
from typing import Self
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy._retry_queue import RetryQueue
from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.quotas.alerts import BudgetAlert
from asgi_aiproxy.services.address_policy import Destinations
from asgi_aiproxy.upstream import Transport, default_transport
from asgi_aiproxy.upstream.base import UpstreamRequest

logger = logging.getLogger("asgi_aiproxy.budgets")

_SECRET_PREFIX = "whsec_"  # noqa: S105 (of Standard Webhooks)
_MIN_SECRET_BYTES = 16
_REQUEST_SECONDS = 10.0
_MAX_WAITING = 1000


class _Delivery(msgspec.Struct, frozen=True):
    """An alert that is to be delivered."""

    id: str
    body: bytes
    expires: float


class BudgetWebhook:
    """A callback for `Quota(on_threshold=...)` that sends alerts to a URL.

    `secret` signs the requests: `whsec_` and base64 as in Standard Webhooks, or any text of at
    least 16 bytes. `networks` are address ranges that are allowed although they are not public;
    None allows all. `retry_seconds` is for how long an alert is tried. `transport` sends the
    requests; by default one of its own. `clock` returns Unix time. Raises ConfigurationError if an
    argument is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        networks: Iterable[str] | None = (),
        retry_seconds: float = 3600.0,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("BudgetWebhook: url must begin with https:// or http://.")
        self._url = url
        self._key = _signing_key(secret)
        self._destinations = Destinations(networks)
        self._retry_seconds = retry_seconds
        self._own = default_transport() if transport is None else None
        self._transport = transport
        self._clock = clock
        self._error = ""
        self._queue: RetryQueue[_Delivery] = RetryQueue(
            self._deliver,
            what=f"budget alerts for {parts.hostname}",
            max_items=_MAX_WAITING,
            batch_size=8,
            failure_reason=lambda: self._error,
        )

    def __repr__(self) -> str:
        return f"BudgetWebhook({urlsplit(self._url).hostname})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()
        if self._own is not None:
            await self._own.aclose()

    def __call__(self, alert: BudgetAlert) -> None:
        """Queue an alert."""
        now = self._clock()
        event = {
            "type": "budget.threshold",
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            "data": {**msgspec.structs.asdict(alert), "left": alert.left},
        }
        id = f"msg_{getrandbits(128):032x}"
        body = msgspec.json.encode(event)
        self._queue.put(_Delivery(id, body, now + self._retry_seconds))

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all alerts are delivered, at most `timeout` seconds."""
        await self._queue.drain(timeout)

    async def _deliver(self, batch: list[_Delivery]) -> list[_Delivery]:
        """Send a batch; returns what is to be tried again."""
        accepted = await asyncio.gather(*map(self._send, batch))
        again = []
        for delivery, done in zip(batch, accepted, strict=True):
            if done:
                continue
            if self._clock() < delivery.expires:
                again.append(delivery)
            else:
                logger.error("a budget alert could not be delivered: %s", delivery.body.decode())
        return again

    async def _send(self, delivery: _Delivery) -> bool:
        """Send one request; whether it was accepted."""
        transport = self._transport if self._transport is not None else self._own
        assert transport is not None  # noqa: S101 (one of the two is set)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._destinations.check_url(self._url)
                response = await transport.send(self._request(delivery))
                try:
                    status = response.status
                finally:
                    await response.aclose()
        except TimeoutError:
            self._error = f"no answer within {_REQUEST_SECONDS:g} s"
        except APIError as error:
            self._error = error.message
        else:
            self._error = f"HTTP {status}"
            return 200 <= status < 300
        return False

    def _request(self, delivery: _Delivery) -> UpstreamRequest:
        sent = str(int(self._clock()))
        return UpstreamRequest(
            method="POST",
            url=self._url,
            headers=[
                ("content-type", "application/json"),
                ("webhook-id", delivery.id),
                ("webhook-timestamp", sent),
                ("webhook-signature", signature(self._key, delivery.id, sent, delivery.body)),
            ],
            body=delivery.body,
        )


def signature(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = f"{id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _signing_key(secret: str) -> bytes:
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ConfigurationError(
                "BudgetWebhook: a secret that begins with whsec_ must continue in base64."
            ) from None
    if len(key) < _MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"BudgetWebhook: the secret must have at least {_MIN_SECRET_BYTES} bytes."
        )
    return key
