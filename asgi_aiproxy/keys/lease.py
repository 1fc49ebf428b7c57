"""A key in use, the request for one, and the error if none is available."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from asgi_aiproxy.errors import AIProxyError, RefusalScope
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.rate_limit_headers import exhausted_for

if TYPE_CHECKING:
    from asgi_aiproxy.keys.key_set import KeySet


class NoKeyError(AIProxyError):
    """No key is available now.

    `retry_after` is the number of seconds until the first key is usable, None if unknown. `exists`:
    a matching key exists but is busy or cooling down. `unknown`: the requested key id is not in the
    pool. `empty`: the pool has no keys. Of the matching keys, `rejected` were refused by the
    provider, and `limited` are over a limit or busy.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        exists: bool = True,
        unknown: bool = False,
        empty: bool = False,
        rejected: int = 0,
        limited: int = 1,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.exists = exists
        self.unknown = unknown
        self.empty = empty
        self.rejected = rejected
        self.limited = limited


class Lease:
    """A key in use.

    Call `report` with the status of the response, `update_from_headers` with its headers, and
    `release` at the end; further calls of `release` have no effect. A `with` block releases the
    lease at its end.
    """

    __slots__ = ("_keys", "_model", "_state", "key")

    def __init__(self, keys: KeySet, state: KeyState, model: str = "") -> None:
        self._keys: KeySet | None = keys
        self._model = model
        self._state = state
        self.key = state.key

    def __repr__(self) -> str:
        return f"Lease({self.key.id})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def report(
        self,
        status: int,
        retry_after: float | None = None,
        *,
        code: str | None = None,
        about: RefusalScope | None = None,
    ) -> None:
        """Update the health of the key by the status of its response.

        `retry_after` is in seconds. `code` is the provider's error code, `about` the scope of the
        refusal if known; a 429 without either concerns the model that the lease is for, if any.
        """
        if self._keys is not None and not (status < 400 and self._state.unblemished):
            if about is None and status == 429 and code is None and self._model:
                about = RefusalScope.MODEL
            self._keys.apply_response(self._state, self._model, status, retry_after, code, about)

    def update_from_headers(self, headers: Sequence[tuple[str, str]], now: float) -> None:
        """Read the rate-limit headers of a response: a key whose limit is used up cools down until
        the limit is renewed. `now` is Unix time in seconds.
        """
        if self._keys is not None and (seconds := exhausted_for(headers, now)):
            self._keys.pause(self._state, self._model, seconds)

    def count_tokens(self, tokens: int) -> None:
        """Count tokens against the limit of the key."""
        if self.key.tpm is not None:
            self._state.count_tokens(tokens)

    def release(self) -> None:
        """End the use of the key."""
        keys, self._keys = self._keys, None
        if keys is not None:
            keys.release(self._state)

    def cancel(self) -> None:
        """End a use for which no request was sent: it does not count against limits."""
        if self._keys is not None:
            self._state.cancel_use()
        self.release()


class LeasePrefetch:
    """Acquires a key ahead of its use, so that the call to the store shares a round trip with
    another one.

    `purpose` is what the key is for, as the caller identifies it.
    """

    def __init__(self, acquiring: Coroutine[Any, Any, Lease], purpose: object) -> None:
        self.purpose = purpose
        self._task = asyncio.get_running_loop().create_task(acquiring)

    async def lease(self) -> Lease:
        """Wait for the key. Raises NoKeyError."""
        return await self._task

    def drop(self) -> None:
        """Cancel the lease, which is not needed: it does not count against limits."""
        self._task.cancel()
        self._task.add_done_callback(_cancel_lease)


def _cancel_lease(task: asyncio.Task[Lease]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().cancel()


class KeyRequest(msgspec.Struct, frozen=True, gc=False):
    """Which key a request needs; see `KeyPool.acquire` for the fields."""

    model: str
    key_id: str
    affinity: str
    exclude: Collection[str]
    among: tuple[str, ...] = ()
    caller: str = ""

    @property
    def kind(self) -> tuple[str, str, frozenset[str], tuple[str, ...]]:
        """Requests of the same kind can be served by the same keys."""
        return self.model, self.key_id, frozenset(self.exclude), self.among
