"""A request that the mock received, for the assertions of tests."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from anyio import to_thread

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.testing.paths import match_path

_FORM_MODEL = re.compile(rb'name="model"\r?\n\r?\n([^\r\n]*)')


@dataclass(eq=False, slots=True, kw_only=True)
class ReceivedRequest:
    """One received request, and how its exchange ended.

    `path` is as sent (percent-encoded, without the query), header names are in lower case, `json`
    is the parsed body, or None if it is not JSON. `dialect` is "openai", "anthropic", "gemini",
    "ollama", "cohere" or "bedrock"; `operation` is "chat", "embeddings", "models" ..., or empty if
    the mock does not know the path. `started` and `ended` are times of `time.monotonic`, in
    seconds. `client_gone` is true if the client disconnected before it had the whole response.
    """

    number: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    json: Any
    dialect: str
    operation: str
    model: str
    started: float
    ended: float | None = None
    client_gone: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    def __repr__(self) -> str:
        gone = ", client gone" if self.client_gone else ""
        return f"<Seen {self.number}: {self.method} {self.path} ({self.dialect}{gone})>"

    @property
    def members(self) -> dict[str, Any]:
        """The members of the body, if it is a JSON object."""
        return self.json if isinstance(self.json, dict) else {}

    @property
    def streamed(self) -> bool:
        """Whether the request is for a stream, in the dialect's own way."""
        if self.dialect == "gemini":
            return self.path.endswith(":streamGenerateContent")
        if self.dialect == "bedrock":
            return self.path.endswith("/converse-stream")
        if self.dialect == "ollama":
            return self.operation == "chat" and self.members.get("stream") is not False
        return self.members.get("stream") is True

    @property
    def secrets(self) -> frozenset[str]:
        """All credentials of the request, from all places where they may be."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        found = [self.headers.get(name, "") for name in ("x-api-key", "api-key", "x-goog-api-key")]
        found += [token] if kind.lower() == "bearer" else []
        return frozenset(filter(None, [*found, *parse_qs(self.query).get("key", ())]))

    def close(self, *, client_gone: bool) -> None:
        """End the exchange."""
        self.ended = time.monotonic()
        self.client_gone = client_gone
        self._over.set()

    async def wait_over(self, timeout: float = 10.0) -> None:
        """Wait until the exchange has ended, from any thread or loop; raises TimeoutError after
        `timeout` seconds.
        """
        wait = partial(self._over.wait, timeout)
        if not await to_thread.run_sync(wait, abandon_on_cancel=True):
            raise TimeoutError(f"{self!r} has not ended within {timeout} seconds")

    async def wait_gone(self, timeout: float = 10.0) -> None:
        """Wait until the mock has noticed the disconnect of the client.

        Raises TimeoutError after `timeout` seconds, and AssertionError if the client got its whole
        response.
        """
        await self.wait_over(timeout)
        if not self.client_gone:
            raise AssertionError(f"{self!r} ended, and its client was still there")


def parse_received(scope: Scope, body: bytes, *, number: int, started: float) -> ReceivedRequest:
    """Return the request in an ASGI scope."""
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0]
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    place = match_path(scope["method"], path, headers)
    received = ReceivedRequest(
        number=number,
        method=scope["method"],
        path=path,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        body=body,
        json=_parsed(body),
        dialect=place.dialect,
        operation=place.operation,
        model=place.model,
        started=started,
    )
    if not received.model and received.operation not in ("models", ""):
        received.model = _model(received)
    return received


def _parsed(body: bytes) -> Any:
    try:
        return _json.loads(body)
    except _json.NotJSONError:
        return None


def _model(received: ReceivedRequest) -> str:
    named = received.members.get("model")
    if isinstance(named, str):
        return named
    field_of_form = _FORM_MODEL.search(received.body)
    return field_of_form[1].decode("utf-8", "replace") if field_of_form else ""
