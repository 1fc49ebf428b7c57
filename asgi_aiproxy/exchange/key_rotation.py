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

from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from asgi_aiproxy.credentials import redactor_for
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.exchange.record import ExchangeRecord
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys import Key, Lease
from asgi_aiproxy.keys.lease import KeyRequest, LeasePrefetch
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


@dataclass(slots=True, eq=False, repr=False)
class KeyRotation:
    """Leases keys for the attempts of one exchange, and reports responses to them.

    `record` lists the attempts and has the id of the current key, `key` is that key with the secret
    that is sent. `retries` decides after which refusals another key is tried. `target` is the one
    whose keys are leased.
    """

    request: GatewayRequest
    record: ExchangeRecord
    retries: RetryRules
    target: Target | None = None
    key: Key | None = None
    _lease: Lease | None = None
    _prefetched: LeasePrefetch | None = None
    _deferred: list[Lease] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"KeyRotation({self.target!r})"  # without the secret

    # targets and their keys

    def prefetch(self, target: Target) -> None:
        """Start leasing the first key of `target` now, if its use is counted in a store."""
        keys = target.provider.keys
        if keys is not None and keys.needs_store and not self.request.own_key:
            self._prefetched = LeasePrefetch(keys.lend(self._key_request(target, ())), target)

    def start_target(self, target: Target) -> None:
        """Use keys of this target from now on."""
        self.target, record = target, self.record
        record.provider, record.upstream_model = target.provider.name, target.model
        record.key_id, self.key = "", None

    async def acquire(self, target: Target, tried: set[str]) -> Key | None:
        """Lease the next key that is not `tried`; None if the target needs no key.

        Raises NoKeyError.
        """
        request, provider = self.request, target.provider
        if request.own_key:
            self.key = Key(request.own_key, id="own")
            return self.key
        if provider.keys is None:
            return None
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is not None and prefetched.purpose is target:
            self._lease = await prefetched.lease()
        else:
            if prefetched is not None:
                prefetched.drop()
            self._lease = await provider.keys.lend(self._key_request(target, tried))
        key = self._lease.key
        self.record.key_id, self.key = key.id, key
        return key

    async def with_credential(self, key: Key | None) -> Key | None:
        """The key with the credential that is sent for it. Raises APIError if there is none.

        A caller's own key is sent as it is: it must not name an identity of the gateway.
        """
        if self.request.own_key:
            return key
        assert self.target is not None  # noqa: S101 (a key is one of a target)
        self.key = await self.target.provider.with_credential(key)
        return self.key

    def _key_request(self, target: Target, tried: Collection[str]) -> KeyRequest:
        request, principal = self.request, self.request.principal
        return KeyRequest(
            target.model, request.key_id, request.affinity, tried, principal.keys, principal.id
        )

    def may_try_another(self, error: APIError, tried: int, *, last: bool) -> bool:
        """Whether another key of the same target may succeed, and may be tried.

        `tried` is the number of keys that failed before this one; `last` means that no other
        target follows.
        """
        request = self.request
        if request.key_id or request.own_key or request.sent_once:
            return False
        if error.about is RefusalScope.UNCLEAR and not last:
            return False
        return self.retries.another_key_may_help(error, tried + 1)

    def end_target(self, target: Target, failure: APIError) -> APIError:
        """Release the keys whose refusal was deferred, at the end of a target that has failed.

        Returns the failure; its `retry_after` is when the first key is available again.
        """
        keys, request = target.provider.keys, self.request
        if failure.kind in KEY_KINDS and keys is not None and not request.own_key:
            wait = keys.soonest(
                model=target.model, key_id=request.key_id, among=request.principal.keys
            )
            if wait > 0:  # (otherwise a key is available, and something else is wrong)
                failure.retry_after = wait if wait < float("inf") else None
        self._release_deferred()
        return failure

    def redact(self, error: APIError) -> APIError:
        """Remove the current key from the error, in case the provider quoted it."""
        secret = redactor_for(self.key.secret) if self.key is not None else None
        if secret is not None:
            error.message = secret.text(error.message)
            if error.body is not None:
                error.body = secret.data(error.body)
        return error

    # attempts

    def answered(self, status: int, headers: Headers, now: float) -> None:
        """Report a response that committed the exchange; `now` is Unix time in seconds."""
        self.record.answered(status)
        if self._lease is not None:
            self._lease.report(status)
            self._lease.update_from_headers(headers, now)
        if self._deferred:  # the model exists: those keys cannot use it
            for lease in self._deferred:
                lease.report(404, about=RefusalScope.MODEL)
            self._release_deferred()

    def failed(self, error: APIError) -> None:
        """Report a failed attempt to its key, and release the key."""
        self.record.failed(error)
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

    def _release_deferred(self) -> None:
        for lease in self._deferred:
            lease.release()
        self._deferred.clear()

    def close(self, usage: Usage | None, error: APIError | None) -> None:
        """Release all leases, at the end of the exchange."""
        if self._deferred:
            self._release_deferred()
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
