"""What all exchanges of an app share, and what an exchange returns at its commit point."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from asgi_aiproxy.credentials import SecretRedactor
from asgi_aiproxy.exchange.continuation import Continuations
from asgi_aiproxy.exchange.receipts import Receipts
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.request_limits import RequestLimits
from asgi_aiproxy.upstream.base import Headers, Timeouts, Transport
from asgi_aiproxy.usage.recorder import Recorder


class CommittedResponse(msgspec.Struct, frozen=True, gc=False):
    """The head of a committed response, and its first bytes for the client."""

    media_type: str
    first: bytes
    whole: bool  # `first` is the whole response
    headers: Headers  # the provider's
    ignored: tuple[str, ...]  # members of the request that the provider was not sent
    provider: str
    key_id: str
    redactor: SecretRedactor | None  # removes the key from headers that are passed on
    emulated: tuple[str, ...] = ()  # features that the model lacks
    estimated: bool = False  # the gateway estimated it, no provider was called


class Relay:
    """What all exchanges of an app share.

    Arguments:

    - `router`: names the targets for a model.
    - `transport`, `timeouts`: how and how long to talk to providers.
    - `recorder`: takes the usage records.
    - `attempts`: how many targets may fail before the request fails. Keys that are refused or over
      a limit are not counted: each of them is tried.
    - `backoff`: seconds to wait before all targets are tried again, when all failed in a way that
      may pass; doubled each time.
    - `strict`: refuse a request that a target cannot carry whole.
    - `limits`: how large a request may be that is translated.
    - `receipts`: where answers show what they cost.
    - `continuations`: tokens of conversations that providers keep.
    - `clock`: Unix time in seconds.
    """

    def __init__(
        self,
        router: Router,
        *,
        transport: Transport,
        recorder: Recorder,
        timeouts: Timeouts | None = None,
        attempts: int = 3,
        backoff: float = 0.25,
        strict: bool = False,
        limits: RequestLimits | None = None,
        receipts: Receipts | None = None,
        continuations: Continuations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.router = router
        self.transport = transport
        self.recorder = recorder
        self.timeouts = timeouts if timeouts is not None else Timeouts()
        self.attempts = attempts
        self.backoff = backoff
        self.strict = strict
        self.limits = limits if limits is not None else RequestLimits()
        self.receipts = receipts if receipts is not None else Receipts()
        # Whether a usage record is read by anyone, or shown in the response.
        self.recorded = recorder.records or self.receipts.prices is not None
        self.continuations = continuations if continuations is not None else Continuations()
        self.clock = clock
