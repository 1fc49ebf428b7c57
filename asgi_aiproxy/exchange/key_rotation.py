"""The keys that one call uses, one after the other, and what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Collection, Coroutine
from typing import Any

from asgi_aiproxy.credentials import redactor_for
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys import Key, KeyPool, Lease
from asgi_aiproxy.keys.lease_prefetch import LeasePrefetch
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers.base import Target
from asgi_aiproxy.upstream.base import Headers
from asgi_aiproxy.usage.record import Attempt

_ABOUT_KEYS = frozenset({RefusalScope.KEY, RefusalScope.ACCOUNT, RefusalScope.MODEL})
_KEY_KINDS = frozenset({ErrorKind.LIMITED, ErrorKind.KEY_REJECTED})


class KeyRotation:
    """Leases keys for the attempts of one call, judges them, and lists the attempts.

    A key that is refused for a model in a way that may hold for all keys (403, 404) is doubted:
    that is held against it only if another key then serves the same model. `attempts` is how many
    keys such a refusal may cost.
    """

    __slots__ = (
        "_ahead",
        "_attempts",
        "_call",
        "_doubted",
        "_lease",
        "_sent",
        "_unclear",
        "id",
        "secret",
        "target",
        "tries",
    )

    def __init__(self, call: GatewayRequest, attempts: int) -> None:
        self._call = call
        self._attempts = attempts
        self._lease: Lease | None = None
        self._ahead: LeasePrefetch | None = None
        self._doubted: list[Lease] = []
        self._sent: float | None = None  # when the attempt that runs was
        self._unclear = False
        self.target: Target | None = None
        self.id = ""
        self.secret = ""
        self.tries: list[Attempt] = []

    # one target after the other

    def prefetch(self, target: Target) -> None:
        """Ask for the first key now, should it be counted in a store."""
        keys = target.provider.keys
        if keys is not None and keys.needs_store and not self._call.own_key:
            self._ahead = LeasePrefetch(self._acquire(keys, target, ()), target)

    def start_target(self, target: Target) -> None:
        """From now on keys are for this target."""
        self.target = target
        self.id = self.secret = ""

    async def acquire(self, target: Target, tried: set[str]) -> Key | None:
        """The next key; None if the target takes none. Raises NoKeyError."""
        call, provider = self._call, target.provider
        if call.own_key:
            self.secret = call.own_key
            return Key(call.own_key, id="own")
        if provider.keys is None:
            return None
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.purpose is target:
            self._lease = await ahead.lease()
        else:
            if ahead is not None:
                ahead.drop()
            self._lease = await self._acquire(provider.keys, target, tried)
        key = self._lease.key
        self.id, self.secret = key.id, key.secret
        return key

    def _acquire(
        self, keys: KeyPool, target: Target, tried: Collection[str]
    ) -> Coroutine[Any, Any, Lease]:
        call = self._call
        return keys.acquire(
            model=target.model,
            key_id=call.key_id,
            affinity=call.affinity,
            exclude=tried,
            among=call.principal.keys,
        )

    def may_try_another(self, error: APIError, tried: int, *, last: bool) -> bool:
        """Whether another key of the same target may do better, and may be tried; `last` says that
        there is no other target."""
        call = self._call
        if call.key_id or call.own_key or call.upload is not None:
            return False
        if error.about is RefusalScope.UNCLEAR:
            return last and self.once_more()
        if error.about is RefusalScope.MODEL and error.kind is not ErrorKind.LIMITED:
            return tried + 1 < self._attempts
        return error.about in _ABOUT_KEYS

    def once_more(self) -> bool:
        """Whether the one attempt is left that an unclear refusal may cost; it is spent now."""
        again, self._unclear = not self._unclear, True
        return again

    def with_time(self, failure: APIError, target: Target) -> APIError:
        """The failure with the time when the first key is back, which is when to try again."""
        keys, call = target.provider.keys, self._call
        if failure.kind in _KEY_KINDS and keys is not None and not call.own_key:
            wait = keys.soonest(model=target.model, key_id=call.key_id, among=call.principal.keys)
            if wait > 0:  # (else that one would do, and it is something else that is wrong)
                failure.retry_after = wait if wait < float("inf") else None
        return failure

    def without_secret(self, error: APIError) -> APIError:
        """The same error, should the provider have quoted the key it was sent."""
        secret = redactor_for(self.secret)
        if secret is not None:
            error.message = secret.text(error.message)
            if error.body is not None:
                error.body = secret.data(error.body)
        return error

    # one attempt after the other

    def sent(self) -> None:
        """A request leaves."""
        self._sent = time.perf_counter()

    def answered(self, status: int, headers: Headers, now: float) -> None:
        """It is answered; `now` is Unix time."""
        if self.tries:
            self._note(status)
        self._sent = None
        if self._lease is not None:
            self._lease.report(status)
            self._lease.update_from_headers(headers, now)
        for lease in self._doubted:
            lease.report(404, about=RefusalScope.MODEL)

    def failed(self, error: APIError) -> None:
        """It has failed: its key is judged, and free."""
        if self._sent is not None:
            code = error.code or next(iter(error.words), "")
            self._note(error.upstream_status or 0, code, error.message)
        lease, self._lease = self._lease, None
        if lease is None:
            return
        status = error.upstream_status or 0
        if status < 400 and error.kind is ErrorKind.LIMITED:
            status = 429  # told within a stream
        timeless = error.retry_after is None
        if error.about is RefusalScope.MODEL and error.kind is not ErrorKind.LIMITED and timeless:
            self._doubted.append(lease)
            return
        lease.report(status or 500, error.retry_after, about=error.about)
        lease.release()

    def end_target(self) -> None:
        """No more keys of this target are tried."""
        for lease in self._doubted:
            lease.release()
        self._doubted.clear()

    def close(self, usage: Usage | None, error: APIError | None, *, began: bool) -> None:
        """The call is over: free what is held."""
        if self._sent is not None and not began:
            self._note(0, "", error.message if error is not None else "The client left.")
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.drop()
        self.end_target()
        lease, self._lease = self._lease, None
        if lease is not None:
            with lease:  # which is released, whatever happens
                if usage is not None:
                    lease.count_tokens(usage.input + usage.output)
                if error is not None and error.kind is ErrorKind.LIMITED:
                    lease.report(429, error.retry_after)

    def _note(self, status: int, code: str = "", message: str = "") -> None:
        sent, self._sent = self._sent, None
        if sent is None or self.target is None:
            return
        seconds = time.perf_counter() - sent
        name, model = self.target.provider.name, self.target.model
        self.tries.append(Attempt(name, model, self.id, status, code, message, seconds))
