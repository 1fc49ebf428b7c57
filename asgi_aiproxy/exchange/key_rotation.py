"""The API keys that one exchange uses, and what each response means for them. Theory of operation.

An attempt leases one key. Its response is reported to the lease, which sets the key's cooldown in
its pool. Then the next attempt may use another key of the same target:

* A refusal about the key or its account (401, 402, 429 ...): always, each key at most once.
* A refusal of the model for this key (403, 404): such an error often holds for all keys, because
  the model does not exist. At most `attempts` keys are tried, and the refusals are *deferred*:
  their leases stay open until another key has served the same model. Only then are they reported
  against the keys; otherwise they are released without consequences.
* A 400 that is unclear, about the request or about the account: one more attempt in the whole
  exchange, with another key or at another target.
* Anything else is not about the key, so another key would not help.

A request that names its key (`key_id`), brings its own, or has a body that can be sent only once
(an upload) is never repeated.

If the first target counts its keys in a store, `prefetch` starts the lease while the admission
control reserves its part, so that both take one round trip.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any

import msgspec

from asgi_aiproxy.credentials import redactor_for
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.exchange.record import ExchangeRecord
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys import Key, KeyPool, Lease
from asgi_aiproxy.keys.lease import LeasePrefetch
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers.base import Target
from asgi_aiproxy.upstream.base import Headers

_ABOUT_KEYS = frozenset({RefusalScope.KEY, RefusalScope.ACCOUNT, RefusalScope.MODEL})
# Errors that another key of the provider may not have, now or later.
KEY_KINDS = frozenset({ErrorKind.LIMITED, ErrorKind.KEY_REJECTED})


class RetryRules(msgspec.Struct):
    """Which refusals another key may not get; the same for shims and the proxy.

    `max_model_refusals` is how many keys a refusal of the model may cost.
    """

    max_model_refusals: int
    unclear_attempt_used: bool = False

    def another_key_may_help(self, error: APIError, tried: int) -> bool:
        """Whether another key may succeed where `tried` keys were refused, the last by `error`."""
        if error.about is RefusalScope.UNCLEAR:
            return self.take_unclear_attempt()
        if error.about is RefusalScope.MODEL and error.kind is not ErrorKind.LIMITED:
            return tried < self.max_model_refusals
        return error.about in _ABOUT_KEYS

    def take_unclear_attempt(self) -> bool:
        """Use up the one further attempt after an unclear refusal; False if it is used already."""
        available, self.unclear_attempt_used = not self.unclear_attempt_used, True
        return available


class KeyRotation:
    """Leases keys for the attempts of one exchange, and reports responses to them.

    `record` lists the attempts and has the id of the current key, `secret` is that of the key.
    `retries` decides after which refusals another key is tried, of which a refusal of the model may
    cost `max_model_refusals`.
    """

    __slots__ = (
        "_deferred",
        "_lease",
        "_prefetched",
        "_record",
        "_request",
        "retries",
        "secret",
        "target",
    )

    def __init__(
        self, request: GatewayRequest, record: ExchangeRecord, max_model_refusals: int
    ) -> None:
        self._request = request
        self._record = record
        self.retries = RetryRules(max_model_refusals)
        self._lease: Lease | None = None
        self._prefetched: LeasePrefetch | None = None
        self._deferred: list[Lease] = []
        self.secret = ""
        self.target: Target | None = None

    # targets and their keys

    def prefetch(self, target: Target) -> None:
        """Start leasing the first key of `target` now, if its use is counted in a store."""
        keys = target.provider.keys
        if keys is not None and keys.needs_store and not self._request.own_key:
            self._prefetched = LeasePrefetch(self._acquire(keys, target, ()), target)

    def start_target(self, target: Target) -> None:
        """Use keys of this target from now on."""
        self.target, record = target, self._record
        record.provider, record.upstream_model = target.provider.name, target.model
        record.key_id = self.secret = ""

    async def acquire(self, target: Target, tried: set[str]) -> Key | None:
        """Lease the next key that is not `tried`; None if the target needs no key.

        Raises NoKeyError.
        """
        request, provider = self._request, target.provider
        if request.own_key:
            self.secret = request.own_key
            return Key(request.own_key, id="own")
        if provider.keys is None:
            return None
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is not None and prefetched.purpose is target:
            self._lease = await prefetched.lease()
        else:
            if prefetched is not None:
                prefetched.drop()
            self._lease = await self._acquire(provider.keys, target, tried)
        key = self._lease.key
        self._record.key_id, self.secret = key.id, key.secret
        return key

    async def with_credential(self, key: Key | None) -> Key | None:
        """The key with the credential that is sent for it. Raises APIError if there is none.

        A caller's own key is sent as it is: it must not name an identity of the gateway.
        """
        if self._request.own_key:
            return key
        assert self.target is not None  # noqa: S101 (a key is one of a target)
        key = await self.target.provider.with_credential(key)
        self.secret = key.secret if key is not None else ""
        return key

    def _acquire(
        self, keys: KeyPool, target: Target, tried: Collection[str]
    ) -> Coroutine[Any, Any, Lease]:
        request = self._request
        return keys.acquire(
            model=target.model,
            key_id=request.key_id,
            affinity=request.affinity,
            exclude=tried,
            among=request.principal.keys,
            caller=request.principal.id,
        )

    def may_try_another(self, error: APIError, tried: int, *, last: bool) -> bool:
        """Whether another key of the same target may succeed, and may be tried.

        `tried` is the number of keys that failed before this one; `last` means that no other
        target follows.
        """
        request = self._request
        if request.key_id or request.own_key or request.sent_once:
            return False
        if error.about is RefusalScope.UNCLEAR and not last:
            return False
        return self.retries.another_key_may_help(error, tried + 1)

    def with_retry_after(self, failure: APIError, target: Target) -> APIError:
        """Set `retry_after` of a failure to when the first key of the target is available again."""
        keys, request = target.provider.keys, self._request
        if failure.kind in KEY_KINDS and keys is not None and not request.own_key:
            wait = keys.soonest(
                model=target.model, key_id=request.key_id, among=request.principal.keys
            )
            if wait > 0:  # (otherwise a key is available, and something else is wrong)
                failure.retry_after = wait if wait < float("inf") else None
        return failure

    def redact(self, error: APIError) -> APIError:
        """Remove the current key from the error, in case the provider quoted it."""
        secret = redactor_for(self.secret)
        if secret is not None:
            error.message = secret.text(error.message)
            if error.body is not None:
                error.body = secret.data(error.body)
        return error

    # attempts

    def answered(self, status: int, headers: Headers, now: float) -> None:
        """Report a response that committed the exchange; `now` is Unix time in seconds."""
        self._record.answered(status)
        if self._lease is not None:
            self._lease.report(status)
            self._lease.update_from_headers(headers, now)
        for lease in self._deferred:
            lease.report(404, about=RefusalScope.MODEL)

    def failed(self, error: APIError) -> None:
        """Report a failed attempt to its key, and release the key."""
        self._record.failed(error)
        lease, self._lease = self._lease, None
        if lease is None:
            return
        status = error.upstream_status or 0
        if status < 400 and error.kind is ErrorKind.LIMITED:
            status = 429  # an error event within a stream
        without_time = error.retry_after is None
        if (
            error.about is RefusalScope.MODEL
            and error.kind is not ErrorKind.LIMITED
            and without_time
        ):
            self._deferred.append(lease)
            return
        lease.report(status or 500, error.retry_after, about=error.about)
        lease.release()

    def end_target(self) -> None:
        """Release the keys whose refusal was deferred."""
        for lease in self._deferred:
            lease.release()
        self._deferred.clear()

    def close(self, usage: Usage | None, error: APIError | None) -> None:
        """Release all leases, at the end of the exchange."""
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is not None:
            prefetched.drop()
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                if usage is not None:
                    lease.count_tokens(usage.input + usage.output)
                if error is not None and error.kind is ErrorKind.LIMITED:
                    lease.report(429, error.retry_after)
            finally:
                lease.release()
