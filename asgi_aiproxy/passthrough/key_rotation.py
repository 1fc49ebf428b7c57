"""The keys that one exchange may use, one after the other."""

from __future__ import annotations

import logging
import re
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
from asgi_aiproxy.keys import Key, Lease, NoKeyError
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.upstream.base import Headers

logger = logging.getLogger("asgi_aiproxy")

_REFUSED = frozenset({401, 402})
# Answers that tell nothing of the keys that were refused before.
_VAGUE = _REFUSED | {429}
_ABOUT_KEYS = frozenset({RefusalScope.KEY, RefusalScope.ACCOUNT, RefusalScope.MODEL})
_FEW = 3  # keys that are asked when all of them may refuse a model

# Where models are called every key of a vendor's works, unless it is none.
_CALLS = re.compile(
    r"(?:/v\d\w*)?(?:/openai)?(?:/deployments/[^/]+)?(?:/v1)?/(?:chat/completions|completions"
    r"|embeddings|responses|messages|complete|realtime|api/(?:chat|generate|embed|embeddings)"
    r"|models/[^/:]+:(?:generateContent|streamGenerateContent|embedContent|batchEmbedContents)"
    r"|model/[^/]+/(?:invoke|invoke-with-response-stream|converse|converse-stream)"
    r"|ws/google\.ai\.generativelanguage\.[^/]+)"
)


class ProxyKeyRotation:
    """Hands out keys of a pool until one does; there may be no pool, or a key of the caller's own.

    `affinity` is what makes calls get the same key, `model` what the key must serve, and `home` the
    key that has what is asked for, if that is known. `blot` takes the pool's key that was used last
    out of what the client is shown.

    A vendor that does not take keys at some path refuses all of them there: that one was refused
    is held against it only when another did on the same request, or if it was the only one that
    was tried, and for a call of a model. That one was refused for a model is held against it only
    when another was served.
    """

    __slots__ = (
        "_affinity",
        "_asked",
        "_doubted",
        "_lease",
        "_model",
        "_pool",
        "_tried",
        "_unclear",
        "blot",
        "home",
        "key_id",
    )

    def __init__(self, asked: ProxyRequest, *, affinity: str, model: str) -> None:
        provider = asked.site.provider
        self._pool = provider.keys if provider is not None else None
        self._asked = asked
        self._affinity = affinity
        self._model = model
        self._tried: set[str] = set()
        self._lease: Lease | None = None
        self._doubted: list[tuple[Lease, int, RefusalScope | None]] = []
        self._unclear = False  # whether the attempt is spent that an unclear refusal may cost
        self.home = ""
        self.key_id = ""
        self.blot: SecretRedactor | None = None

    @property
    def has_more_keys(self) -> bool:
        """Whether there may be another key."""
        chosen = bool(self._asked.own_key or self._asked.key_id)
        return self._pool is not None and not chosen and len(self._pool) > len(self._tried)

    @property
    def using_pool_key(self) -> bool:
        """Whether the key in use is of the pool."""
        return self._lease is not None

    async def next(self) -> Key | None:
        """The next key. Raises APIError if there is none; see `rests`."""
        self._let_go()
        asked = self._asked
        if asked.own_key:
            self.key_id = "own"
            return Key(asked.own_key, id="own")
        if self._pool is None:
            return None
        lease = await self._at_home() if self.home and not asked.key_id else None
        if lease is None:
            try:
                lease = await self._acquire(asked.key_id)
            except NoKeyError as error:
                failure = no_key_error(error, asked.site.name, self._model)
                raise self.with_time(failure) from error
        self._lease = lease
        key = lease.key
        self.key_id = key.id
        self.blot = redactor_for(key.secret)
        self._tried.add(key.id)
        return key

    async def _at_home(self) -> Lease | None:
        """The key that has what is asked for; None if it is of no use. Raises APIError if it rests.

        (Others of its account may do as well.)
        """
        home, self.home = self.home, ""
        try:
            return await self._acquire(home)
        except NoKeyError as error:
            if error.retry_after is not None:
                raise no_key_error(error, self._asked.site.name, self._model) from error
            return None

    async def _acquire(self, key_id: str) -> Lease:
        assert self._pool is not None  # noqa: S101 (`next` has seen that)
        return await self._pool.acquire(
            model=self._model,
            key_id=key_id,
            affinity=self._affinity,
            exclude=self._tried,
            among=self._asked.principal.keys,
        )

    def record_response(self, status: int, headers: Headers, now: float) -> None:
        """Note an answer that is passed on, and what its headers tell of the key's limits."""
        if self._lease is not None:
            self._settle(status, None, RefusalScope.REQUEST if status >= 400 else None)
            self._lease.update_from_headers(headers, now)

    def refused(
        self, status: int, headers: Headers, body: bytes, now: float, members: Collection[str] = ()
    ) -> APIError:
        """Judge the key by a refusal; returns what it says. `members` are those of the request."""
        provider = self._asked.site.provider
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
        self._settle(status, error.retry_after, error.about)
        return error

    def another(self, error: APIError) -> bool:
        """Whether another key may do better than the one that got this refusal."""
        if not self.has_more_keys:
            return False
        if error.about is RefusalScope.UNCLEAR:
            again, self._unclear = not self._unclear, True
            return again
        if error.about is RefusalScope.MODEL and error.kind is not ErrorKind.LIMITED:
            return len(self._tried) < _FEW
        return error.about in _ABOUT_KEYS

    def with_time(self, error: APIError) -> APIError:
        """The error with the time when the first key is back, which is when to try again."""
        wait = self.soonest()
        if wait and error.kind in (ErrorKind.LIMITED, ErrorKind.KEY_REJECTED):
            error.retry_after = wait
        return error

    def soonest(self) -> float | None:
        """Seconds until the first key is back; None if nobody knows."""
        asked = self._asked
        if self._pool is None or asked.own_key:
            return None
        among = asked.principal.keys
        wait = self._pool.soonest(model=self._model, key_id=asked.key_id, among=among)
        return wait if wait < float("inf") else None

    def ours_refused(self, error: APIError, status: int) -> APIError:
        """What the client learns of a refusal that is about the gateway's key."""
        told = request_id(self._asked.scope), self._asked.site.name, self.key_id, status
        logger.warning("request %s: provider %s refused key %s: HTTP %d", *told)
        if self._doubted:
            self._judge(guilty=len(self._tried) == 1 and self._calls, served=False)
        error.kind, error.status = ErrorKind.KEY_REJECTED, 502
        return self.with_time(
            gateway_key_rejected_error(error, self._asked.site.name, status, had_key=True)
        )

    def _settle(self, status: int, retry_after: float | None, about: RefusalScope | None) -> None:
        lease = self._lease
        if lease is None:
            return
        lasting = about is RefusalScope.MODEL and status != 429 and retry_after is None
        if status in _REFUSED or lasting:
            self._doubted.append((lease, status, about))
            return
        lease.report(status, retry_after, about=about)
        if self._doubted and status not in _VAGUE and status < 500:
            self._judge(guilty=True, served=status < 400)

    def release(self, usage: Usage | None = None) -> None:
        """Give the keys back; what was used counts against the last."""
        try:
            if self._lease is not None and usage is not None:
                self._lease.count_tokens(usage.input + usage.output)
            if self._doubted:
                self._judge(guilty=len(self._tried) == 1 and self._calls, served=False)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Give back the key in use, unless it is still to be judged."""
        lease, self._lease = self._lease, None
        if lease is not None and all(lease is not doubted for doubted, _, _ in self._doubted):
            lease.release()

    def _judge(self, *, guilty: bool, served: bool) -> None:
        """Judge the keys that were refused, and give them back."""
        doubted, self._doubted = self._doubted, []
        count = sum(status in _REFUSED for _, status, _ in doubted)
        if not guilty and count:
            path, name = self._asked.route.path, self._asked.site.name
            logger.warning("%s refused %d keys at %s: none is put to rest", name, count, path)
        with ExitStack() as stack:  # all are given back, whatever happens
            for lease, status, about in doubted:
                stack.enter_context(lease)
                if served if status not in _REFUSED else guilty:
                    lease.report(status, about=about)

    @property
    def _calls(self) -> bool:
        """Whether this calls a model."""
        asked = self._asked
        called = asked.method == "POST" or asked.scope["type"] == "websocket"
        return called and _CALLS.fullmatch(asked.route.path) is not None


def is_key_cooling(error: APIError) -> bool:
    """Whether an error of `next` says that a key would do, later."""
    return error.status == 429
