"""Select the API keys for one proxied request, and judge each key by the response it got.

Theory of operation. A key is leased from the provider's pool, used for one attempt, and reported
to the pool with the status of the response. What a refusal means depends on the path:

- 429 limits this key; it cools down at once, and another key is tried.
- 401 or 402 may be about the key, or the vendor may accept no API key at this path (administration,
  for example), and then every key would be refused. Such a refusal is therefore *deferred*: the
  lease stays in `_refused_leases` until the end of the request. The key is reported as rejected if
  another key was accepted or got an ordinary error on the same request, or if it was the only key
  tried and the path calls a model, where a valid key always works.
- A refusal for this model (403, 404) is deferred, too, and reported only if another key was served.
- An unclear refusal (a 400 that may or may not be about the key) costs one extra attempt in all.

A caller may select a key (`aiproxy-key`) or bring its own; then no other key is tried. A resource
that only one key can find (a file, a batch) is first requested with that key (`resource_key_id`).
Whatever happens, `release` gives every lease back.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import ExitStack

from asgi_aiproxy._request_id import request_id
from asgi_aiproxy.credentials import SecretRedactor, redactor_for
from asgi_aiproxy.errors import APIError, ErrorKind, RefusalScope
from asgi_aiproxy.exchange.error_mapping import (
    error_from_response,
    gateway_key_rejected_error,
    no_key_error,
)
from asgi_aiproxy.exchange.key_rotation import KEY_KINDS, RetryRules
from asgi_aiproxy.keys import Key, Lease, NoKeyError
from asgi_aiproxy.keys.lease import KeyRequest
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.providers.path_profiles import MODEL_CALL
from asgi_aiproxy.upstream.base import Headers

logger = logging.getLogger("asgi_aiproxy")

_REFUSED = frozenset({401, 402})
# Statuses that do not show whether the keys refused before are valid.
_NOT_CONCLUSIVE = _REFUSED | {429}
_MAX_KEYS_FOR_MODEL = 3  # keys tried when all of them may refuse a model


class ProxyKeyRotation:
    """Leases keys for one request until one is accepted (see the theory of operation above).

    `affinity` selects the same key for equal values, `model` is the model that the key must serve,
    and `resource_key_id` the id of the key that holds the requested resource, if known. `key_id` is
    the id of the key in use, and `redactor` removes the pool's last key from what the client sees.
    Without a pool no key is used.
    """

    __slots__ = (
        "_affinity",
        "_lease",
        "_model",
        "_pool",
        "_refused_leases",
        "_request",
        "_retries",
        "_tried_key_ids",
        "key_id",
        "redactor",
        "resource_key_id",
    )

    def __init__(self, request: ProxyRequest, *, affinity: str, model: str) -> None:
        provider = request.target.provider
        self._pool = provider.keys if provider is not None else None
        self._request = request
        self._affinity = affinity
        self._model = model
        self._tried_key_ids: set[str] = set()
        self._lease: Lease | None = None
        self._refused_leases: list[tuple[Lease, int, RefusalScope | None]] = []
        self._retries = RetryRules(_MAX_KEYS_FOR_MODEL)
        self.resource_key_id = ""
        self.key_id = ""
        self.redactor: SecretRedactor | None = None

    @property
    def has_more_keys(self) -> bool:
        """Whether the pool may have a key that was not tried."""
        chosen = bool(self._request.own_key or self._request.key_id)
        return self._pool is not None and not chosen and len(self._pool) > len(self._tried_key_ids)

    @property
    def using_pool_key(self) -> bool:
        """Whether the key in use is one of the pool."""
        return self._lease is not None

    async def next(self) -> Key | None:
        """Lease the next key; None without a pool.

        Raises APIError if no key is available (see `is_key_cooling`).
        """
        if self._lease is not None:
            self._release_lease()
        request = self._request
        if request.own_key:
            self.key_id = "own"
            return Key(request.own_key, id="own")
        if self._pool is None:
            return None
        lease = (
            await self._acquire_resource_key()
            if self.resource_key_id and not request.key_id
            else None
        )
        if lease is None:
            try:
                lease = await self._acquire(request.key_id)
            except NoKeyError as error:
                failure = no_key_error(error, request.target.name, self._model)
                raise self.with_retry_after(failure) from error
        self._lease = lease
        key = lease.key
        self.key_id = key.id
        self._tried_key_ids.add(key.id)
        provider = request.target.provider
        if provider is not None and provider.credentials is not None:
            try:
                key = await provider.with_credential(key) or key
            except APIError as error:
                lease.report(500, about=error.about)
                try:
                    return await self.next()
                except APIError:
                    raise error from None
        self.redactor = redactor_for(key.secret)
        return key

    async def _acquire_resource_key(self) -> Lease | None:
        """Lease the key that holds the resource; None if it was removed or disabled.

        (Other keys of its account may serve, too.) Raises APIError if it is cooling down.
        """
        resource_key_id, self.resource_key_id = self.resource_key_id, ""
        try:
            return await self._acquire(resource_key_id)
        except NoKeyError as error:
            if error.retry_after is not None:
                raise no_key_error(error, self._request.target.name, self._model) from error
            return None

    async def _acquire(self, key_id: str) -> Lease:
        assert self._pool is not None  # noqa: S101 (`next` checks it)
        caller, tried = self._request.principal, self._tried_key_ids
        return await self._pool.lend(
            KeyRequest(self._model, key_id, self._affinity, tried, caller.keys, caller.id)
        )

    def record_response(self, status: int, headers: Headers, now: float) -> None:
        """Report a response that is passed on, and read rate limits from its headers.

        `now` is Unix time in seconds.
        """
        if self._lease is not None:
            self._report(status, None, RefusalScope.REQUEST if status >= 400 else None)
            self._lease.update_from_headers(headers, now)

    def judge_refusal(
        self, status: int, headers: Headers, body: bytes, now: float, members: Collection[str] = ()
    ) -> APIError:
        """Judge the key by a refusal; returns the error it stands for.

        `members` are the names in the request's JSON body, `now` is Unix time in seconds.
        """
        provider = self._request.target.provider
        assert provider is not None  # noqa: S101 (only a provider has keys)
        error = error_from_response(
            provider,
            status,
            headers,
            body,
            now=now,
            native=False,
            members=members,
            model=self._model,
        )
        self._report(status, error.retry_after, error.about)
        return error

    def may_try_another(self, error: APIError) -> bool:
        """Whether another key may succeed where this one was refused with `error`."""
        if not self.has_more_keys:
            return False
        return self._retries.another_key_may_help(error, len(self._tried_key_ids))

    def with_retry_after(self, error: APIError) -> APIError:
        """Set `retry_after` of the error to the seconds until the first key is available."""
        wait = self.soonest()
        if wait and error.kind in KEY_KINDS:
            error.retry_after = wait
        return error

    def soonest(self) -> float | None:
        """Seconds until the first key is available again; None if unknown."""
        request = self._request
        if self._pool is None or request.own_key:
            return None
        among = request.principal.keys
        wait = self._pool.soonest(model=self._model, key_id=request.key_id, among=among)
        return wait if wait < float("inf") else None

    def gateway_key_error(self, error: APIError, status: int) -> APIError:
        """The error for the client when the gateway's own key was refused: 502, never 401."""
        values = request_id(self._request.scope), self._request.target.name, self.key_id, status
        logger.warning("request %s: provider %s refused key %s: HTTP %d", *values)
        if self._refused_leases:
            self._judge_refused(
                guilty=len(self._tried_key_ids) == 1 and self._calls_model, served=False
            )
        error.kind, error.status = ErrorKind.KEY_REJECTED, 502
        return self.with_retry_after(
            gateway_key_rejected_error(error, self._request.target.name, status, had_key=True)
        )

    def _report(self, status: int, retry_after: float | None, about: RefusalScope | None) -> None:
        lease = self._lease
        if lease is None:
            return
        permanent = about is RefusalScope.MODEL and status != 429 and retry_after is None
        if status in _REFUSED or permanent:
            self._refused_leases.append((lease, status, about))
            return
        lease.report(status, retry_after, about=about)
        if self._refused_leases and status not in _NOT_CONCLUSIVE and status < 500:
            self._judge_refused(guilty=True, served=status < 400)

    def release(self, usage: Usage | None = None) -> None:
        """Give all keys back; `usage` counts against the token limit of the last one."""
        try:
            if self._lease is not None and usage is not None:
                self._lease.count_tokens(usage.input + usage.output)
            if self._refused_leases:
                self._judge_refused(
                    guilty=len(self._tried_key_ids) == 1 and self._calls_model, served=False
                )
        finally:
            if self._lease is not None:
                self._release_lease()

    def _release_lease(self) -> None:
        """Give back the key in use, unless its refusal is deferred."""
        lease, self._lease = self._lease, None
        refused = self._refused_leases
        if lease is not None and not (refused and any(lease is other for other, _, _ in refused)):
            lease.release()

    def _judge_refused(self, *, guilty: bool, served: bool) -> None:
        """Report or drop the deferred refusals, and give those keys back."""
        refused, self._refused_leases = self._refused_leases, []
        count = sum(status in _REFUSED for _, status, _ in refused)
        if not guilty and count:
            path, name = self._request.route.path, self._request.target.name
            logger.warning("%s refused %d keys at %s: none of them cools down", name, count, path)
        with ExitStack() as stack:  # gives all of them back, whatever is raised
            for lease, status, about in refused:
                stack.enter_context(lease)
                if served if status not in _REFUSED else guilty:
                    lease.report(status, about=about)

    @property
    def _calls_model(self) -> bool:
        """Whether the request calls a model."""
        request = self._request
        called = request.method == "POST" or request.scope["type"] == "websocket"
        return called and MODEL_CALL.fullmatch(request.route.path) is not None


def is_key_cooling(error: APIError) -> bool:
    """Whether an error of `next` means that a matching key exists, but cools down or is busy."""
    return error.status == 429
