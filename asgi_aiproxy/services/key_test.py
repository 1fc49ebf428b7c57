"""Test a provider's key: whether it is accepted, and how long the answer takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from asgi_aiproxy._cancellation import Deadline
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import Message, Request, Text
from asgi_aiproxy.providers import Provider
from asgi_aiproxy.upstream.base import Transport, fetch

_MAX_ANSWER = 8 * 1024 * 1024  # maximum size of an answer in bytes


class KeyTestResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a key test. `status` is the HTTP status of the provider's answer, 0 without an
    answer.
    """

    id: str
    ok: bool
    status: int
    latency_ms: float
    error: str = ""


async def check_key(
    provider: Provider,
    key: Key | None,
    transport: Transport,
    *,
    model: str = "",
    limit: float = 30.0,
    clock: Callable[[], float] = time.perf_counter,
) -> KeyTestResult:
    """Send a request with a key: for the provider's models, or with `model` for one token of that
    model.

    Some providers list their models without a valid key: there, give a `model`. Returns within
    `limit` seconds; failures of the provider are part of the result, not raised. `clock` returns
    seconds.
    """
    began = clock()
    status, error = 0, ""
    try:
        with Deadline(limit, f"no answer within {limit:g} s"):
            status, body = await _ask(provider, key, transport, model)
        if status != 200:
            error = provider.dialect.decode_error(status, body).message
    except APIError as failure:
        error = failure.message
    return KeyTestResult(
        id=key.id if key is not None else "",
        ok=not error,
        status=status,
        latency_ms=round((clock() - began) * 1000, 1),
        error=error,
    )


async def _ask(
    provider: Provider, key: Key | None, transport: Transport, model: str
) -> tuple[int, bytes]:
    language = provider.dialect
    method, draft = "GET", language.models_request()
    if model:
        hello = Message("user", (Text("Hi"),))
        method = "POST"
        draft = language.encode_request(Request(model=model, messages=(hello,), max_tokens=1))
    key = await provider.with_credential(key)
    request = provider.request(method, provider.transform_request(draft), key, streamed=False)
    return await fetch(transport, request, _MAX_ANSWER)
