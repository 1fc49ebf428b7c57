"""A key in use, what a call wants of a pool, and the error if it can not have it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Self

import msgspec

from asgi_aiproxy.errors import AIProxyError, RefusalScope
from asgi_aiproxy.keys.key_state import KeyState
from asgi_aiproxy.keys.rate_limit_headers import exhausted_for

if TYPE_CHECKING:
    from asgi_aiproxy.keys.pool import KeyPool


class NoKeyError(AIProxyError):
    """No key can serve now; `retry_after` is when the first may, if that is known.

    `exists` is False if no key of the pool would ever do, `unknown` tells that the key that was
    asked for is none of the pool's, `empty` that the pool has none at all. Of the keys that would
    do, `rejected` were refused by the provider, `limited` are over a limit or busy.
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

    `settle` tells how it fared, `learn` what the headers of its answer say, and `release` ends the
    use, once. `with` a lease, it is released at the end of the block.
    """

    __slots__ = ("_model", "_pool", "_slot", "key")

    def __init__(self, pool: KeyPool, slot: KeyState, model: str = "") -> None:
        self._pool: KeyPool | None = pool
        self._model = model
        self._slot = slot
        self.key = slot.key

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
        """Judge the key by the status of its answer; `retry_after` is in seconds.

        `about` is what a refusal is about, as far as that is known; a limit (429) of which nobody
        knows more is one of the model that the lease is for, if it is for one.
        """
        if self._pool is not None:
            if about is None and status == 429 and code is None and self._model:
                about = RefusalScope.MODEL
            self._pool._judge(self._slot, self._model, status, retry_after, code, about)

    def update_from_headers(self, headers: Sequence[tuple[str, str]], now: float) -> None:
        """Heed what the headers of an answer tell of the key's limits: one that is used up rests
        until it is renewed. `now` is Unix time.
        """
        if self._pool is not None and (seconds := exhausted_for(headers, now)):
            self._pool._pause(self._slot, self._model, seconds)

    def count_tokens(self, tokens: int) -> None:
        """Count tokens against the key's limit."""
        self._slot.count_tokens(tokens)

    def release(self) -> None:
        """End the use."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool._release(self._slot)

    def cancel(self) -> None:
        """End a use that has not begun: nothing is counted."""
        if self._pool is not None:
            self._slot.cancel_use()
        self.release()


class KeyRequest(msgspec.Struct, frozen=True, gc=False):
    """What a call asks a pool for."""

    model: str
    key_id: str
    affinity: str
    exclude: Collection[str]
    among: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, str, frozenset[str], tuple[str, ...]]:
        """Wants of one kind can be met by the same keys."""
        return self.model, self.key_id, frozenset(self.exclude), self.among
