"""Credentials that expire: fetched by a vendor's library in a thread, once for all callers.

Theory of operation. Some keys are not sent themselves. They say where a credential comes from that
is valid for an hour or less: a service account, a role, an identity of the machine. The libraries
of Google and Amazon that know all these places block while they talk to them.

A `CredentialSource` wraps such a library: `fetch` returns the credential for a key and until when
it is valid. A `CredentialCache` calls it:

* A credential that is valid for longer than the margin (five minutes) is returned at once.
* Within the margin it is still returned at once, and one thread fetches the next one.
* A missing or expired one is fetched by one thread, for which all callers wait.

The result reaches callers through a `concurrent.futures.Future`, so that event loops of several
threads can share a cache, and a caller that disconnects does not stop what others wait for.

A failure is an APIError about the key: the key cools down, and another key or target is tried. It
is remembered for a few seconds, so that not every request waits for a failing source. While an
old credential is still valid, a failure to renew it is only logged.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope

logger = logging.getLogger("asgi_aiproxy")

_MARGIN_SECONDS = 300.0
_FAILURE_SECONDS = 5.0
_WAIT_SECONDS = 30.0


class Credential(msgspec.Struct, frozen=True):
    """What is sent in place of a key: `secret`, until the Unix time `expires_at` in seconds."""

    secret: str
    expires_at: float


class CredentialSource(Protocol):
    """Where the credentials of a provider's keys come from."""

    name: str  # for messages

    def applies(self, secret: str) -> bool:
        """Whether a key says where a credential comes from. Others are sent as they are."""

    def fetch(self, secret: str) -> Credential:
        """Return a new credential for a key; may block, and raise any exception."""


class _Failure(msgspec.Struct, frozen=True):
    """Why there is no credential, until `retry_at`."""

    message: str
    retry_at: float


class CredentialCache:
    """The current credentials of a provider's keys, from `source`.

    `clock` returns Unix seconds.
    """

    def __init__(self, source: CredentialSource, *, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Credential] = {}
        self._failures: dict[str, _Failure] = {}
        self._fetching: dict[str, Future[Credential | _Failure]] = {}

    def __repr__(self) -> str:
        return f"CredentialCache({self._source.name})"

    async def current(self, secret: str) -> str:
        """What to send for a key. Raises APIError if it cannot be fetched."""
        if not self._source.applies(secret):
            return secret
        known, now = self._known.get(secret), self._clock()
        if known is not None and known.expires_at > now:
            if known.expires_at <= now + _MARGIN_SECONDS:
                self._fetch(secret)
            return known.secret
        failure = self._failures.get(secret)
        if failure is None or failure.retry_at <= now:
            fetched = await self._wait(self._fetch(secret))
            if isinstance(fetched, Credential):
                return fetched.secret
            failure = fetched
        raise self._error(failure)

    async def _wait(self, fetching: Future[Credential | _Failure]) -> Credential | _Failure:
        waiting = asyncio.wrap_future(fetching)
        await asyncio.wait([waiting], timeout=_WAIT_SECONDS)  # a cancelled caller leaves it running
        if waiting.done():
            return waiting.result()
        return _Failure(f"no answer within {_WAIT_SECONDS:g} s", self._clock() + _FAILURE_SECONDS)

    def _fetch(self, secret: str) -> Future[Credential | _Failure]:
        """The fetch that is running, or a new one in a thread of its own."""
        with self._lock:
            fetching = self._fetching.get(secret)
            if fetching is not None:
                return fetching
            failure = self._failures.get(secret)
            if failure is not None and failure.retry_at > self._clock():
                done: Future[Credential | _Failure] = Future()
                done.set_result(failure)
                return done
            fetching = self._fetching[secret] = Future()
            fetching.set_running_or_notify_cancel()
        name = f"credentials of {self._source.name}"
        threading.Thread(target=self._run, args=(secret, fetching), name=name, daemon=True).start()
        return fetching

    def _run(self, secret: str, fetching: Future[Credential | _Failure]) -> None:
        result: Credential | _Failure
        try:
            result = self._source.fetch(secret)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".replace(secret, "***")
            logger.warning("credentials of %s could not be fetched: %s", self._source.name, text)
            result = _Failure(type(error).__name__, self._clock() + _FAILURE_SECONDS)
        with self._lock:
            if isinstance(result, Credential):
                self._known[secret] = result
                self._failures.pop(secret, None)
            else:
                self._failures[secret] = result
            del self._fetching[secret]
        fetching.set_result(result)

    def _error(self, failure: _Failure) -> APIError:
        error = APIError(
            ErrorKind.KEY_REJECTED,
            f"The gateway could not get a credential from {self._source.name} "
            f"({failure.message}). The operator of the gateway finds the reason in its log.",
            code="credential_unavailable",
        )
        error.about = RefusalScope.KEY
        return error
