"""Credentials that expire: fetched by a vendor's library in a thread, once for all callers.

Theory of operation. Some keys are not sent themselves. They say where a credential comes from that
is valid for an hour or less: a service account, a role, an identity of the machine. The libraries
of Google and Amazon that know all these places block while they talk to them.

A `CredentialSource` wraps such a library: `fetch` returns the credential for a key and until when
it is valid. A source whose credentials renew themselves, as with refresh tokens, is a
`RenewingSource`. A `CredentialCache` calls it:

* A credential that is valid for longer than the margin (five minutes) is returned at once.
* Within the margin it is still returned at once, and one thread fetches the next one.
* A missing or expired one is fetched by one thread, for which all callers wait.

With a store, one worker fetches for all of them: see `shared_credentials`.

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
from functools import partial
from typing import Protocol, Self

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind, RefusalScope
from asgi_aiproxy.keys import KeyPool
from asgi_aiproxy.keys.encryption import NoEncryption, SecretCipher
from asgi_aiproxy.providers.shared_credentials import (
    Credential,
    CredentialFailure,
    SharedCredentials,
)
from asgi_aiproxy.stores.base import Store, check_store

logger = logging.getLogger("asgi_aiproxy")

_MARGIN_SECONDS = 300.0
_FAILURE_SECONDS = 5.0
_WAIT_SECONDS = 30.0


class CredentialSource(Protocol):
    """Where the credentials of a provider's keys come from."""

    name: str  # for messages

    def applies(self, secret: str) -> bool:
        """Whether a key says where a credential comes from. Others are sent as they are."""

    def fetch(self, secret: str) -> Credential:
        """Return a new credential for a key; may block, and raise any exception."""


class RenewingSource(CredentialSource, Protocol):
    """A source that needs the `state` of the last credential to fetch the next one."""

    def renew(self, secret: str, state: str) -> Credential:
        """Return a new credential for a key, as `fetch`; `state` is empty the first time."""


class CredentialCache:
    """The current credentials of a provider's keys.

    Arguments:

    - `source`: where they come from.
    - `store`, `sealer`: where all workers share them, and what encrypts them there (not needed for
      a `MemoryStore`). `Provider.using` takes both from a pool that has them.
    - `provider`: the name of the provider; the workers that share have the same.
    - `clock`: returns Unix seconds.

    Raises ConfigurationError for a store without a sealer.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        store: Store | None = None,
        sealer: SecretCipher | None = None,
        provider: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._clock = clock
        self._shared: SharedCredentials | None = None
        if store is not None:
            check_store(store, "CredentialCache")
            if sealer is None and not _is_memory(store):
                raise ConfigurationError(
                    "CredentialCache: credentials must be encrypted before they are stored: pass "
                    "sealer=Sealer(...) (in a configuration file: sealing_keys)."
                )
            cipher = sealer if sealer is not None else NoEncryption()
            self._shared = SharedCredentials(store, cipher, provider or source.name, clock)
        self._lock = threading.Lock()
        self._known: dict[str, Credential] = {}
        self._failures: dict[str, CredentialFailure] = {}
        self._renewed: dict[str, float] = {}  # when the last fetch ended
        self._fetching: dict[str, Future[Credential | CredentialFailure]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def for_pool(self, pool: KeyPool | None, provider: str) -> Self:
        """Return an empty cache of the same source, shared as the keys of `pool` are."""
        table = pool.table if pool is not None else None
        store = table.store if table is not None else None
        cipher = table.cipher if table is not None else None
        if cipher is None and not _is_memory(store):
            store = None
        return type(self)(
            self._source, store=store, sealer=cipher, provider=provider, clock=self._clock
        )

    def __repr__(self) -> str:
        return f"CredentialCache({self._source.name})"

    async def current(self, secret: str) -> str:
        """What to send for a key. Raises APIError if it cannot be fetched."""
        if not self._source.applies(secret):
            return secret
        known, now = self._known.get(secret), self._clock()
        if known is not None and known.expires_at > now:
            pause = self._renewed.get(secret, 0.0) + _FAILURE_SECONDS
            if known.expires_at <= now + _MARGIN_SECONDS and pause <= now:
                self._fetch(secret)
            return known.secret
        failure = self._failures.get(secret)
        if failure is None or failure.retry_at <= now:
            fetched = await self._wait(secret, self._fetch(secret))
            if isinstance(fetched, Credential):
                return fetched.secret
            failure = fetched
        raise self._error(failure)

    async def _wait(
        self, secret: str, fetching: Future[Credential | CredentialFailure]
    ) -> Credential | CredentialFailure:
        waiting = asyncio.wrap_future(fetching)
        await asyncio.wait([waiting], timeout=_WAIT_SECONDS)  # a cancelled caller leaves it running
        if waiting.done():
            return waiting.result()
        with self._lock:  # (its event loop may have been closed)
            if self._fetching.get(secret) is fetching:
                del self._fetching[secret]
        message = f"no answer within {_WAIT_SECONDS:g} s"
        return CredentialFailure(message, self._clock() + _FAILURE_SECONDS)

    def _fetch(self, secret: str) -> Future[Credential | CredentialFailure]:
        """The fetch that is running, or a new one."""
        with self._lock:
            fetching = self._fetching.get(secret)
            if fetching is not None:
                return fetching
            failure = self._failures.get(secret)
            if failure is not None and failure.retry_at > self._clock():
                done: Future[Credential | CredentialFailure] = Future()
                done.set_result(failure)
                return done
            fetching = self._fetching[secret] = Future()
            fetching.set_running_or_notify_cancel()
        if self._shared is None:
            self._in_thread(secret, self._state(secret), partial(self._finish, secret, fetching))
        else:
            task = start(
                self._fetch_shared(self._shared, secret, fetching),
                what=f"credentials of {self._source.name}",
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return fetching

    def _state(self, secret: str) -> str:
        known = self._known.get(secret)
        return known.state if known is not None else ""

    async def _fetch_shared(
        self,
        shared: SharedCredentials,
        secret: str,
        fetching: Future[Credential | CredentialFailure],
    ) -> None:
        async def fetch(state: str) -> Credential | CredentialFailure:
            result: Future[Credential | CredentialFailure] = Future()
            self._in_thread(secret, state, result.set_result)
            return await asyncio.wrap_future(result)

        result: Credential | CredentialFailure = CredentialFailure("interrupted", 0.0)
        try:
            result = await shared.obtain(
                secret,
                self._known.get(secret),
                fetch,
                valid_until=self._clock() + _MARGIN_SECONDS,
            )
        finally:
            self._finish(secret, fetching, result)

    def _in_thread(
        self,
        secret: str,
        state: str,
        finish: Callable[[Credential | CredentialFailure], None],
    ) -> None:
        """Call the source in a thread, and `finish` with the result."""
        name = f"credentials of {self._source.name}"
        run = lambda: finish(self._call(secret, state))  # noqa: E731
        threading.Thread(target=run, name=name, daemon=True).start()

    def _call(self, secret: str, state: str) -> Credential | CredentialFailure:
        try:
            renew = getattr(self._source, "renew", None)
            found: Credential = (
                self._source.fetch(secret) if renew is None else renew(secret, state)
            )
        except Exception as error:
            text = f"{type(error).__name__}: {error}".replace(secret, "***")
            logger.warning("credentials of %s could not be fetched: %s", self._source.name, text)
            return CredentialFailure(type(error).__name__, self._clock() + _FAILURE_SECONDS)
        return found

    def _finish(
        self,
        secret: str,
        fetching: Future[Credential | CredentialFailure],
        result: Credential | CredentialFailure,
    ) -> None:
        with self._lock:
            self._renewed[secret] = self._clock()
            if isinstance(result, Credential):
                self._known[secret] = result
                self._failures.pop(secret, None)
            else:
                self._failures[secret] = result
            if self._fetching.get(secret) is fetching:
                del self._fetching[secret]
        fetching.set_result(result)

    def _error(self, failure: CredentialFailure) -> APIError:
        error = APIError(
            ErrorKind.KEY_REJECTED,
            f"The gateway could not get a credential from {self._source.name} "
            f"({failure.message}). The operator of the gateway finds the reason in its log.",
            code="credential_unavailable",
        )
        error.about = RefusalScope.KEY
        return error


def _is_memory(store: Store | None) -> bool:
    """Whether a store is in this process, so that what it keeps need not be encrypted."""
    from asgi_aiproxy.stores.memory import MemoryStore

    return isinstance(store, MemoryStore)
