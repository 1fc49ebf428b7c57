"""Reads what a batch will call and what it has used, from the bytes that pass.

A file of calls has one JSON object in each line, and so have results; only one line is held at a
time. OpenAI's lines have the call in `body`, and its response in `response.body`; Anthropic's
calls are `params` in the request, and its results `result.message`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.errors import APIError, ErrorKind, invalid

if TYPE_CHECKING:
    from asgi_aiproxy.messages import Usage
    from asgi_aiproxy.prices import SentRequest

_MAX_LINE = 32 * 1024 * 1024

Used = list[tuple[str, str, "Usage"]]


class Lines:
    """Cuts bytes into lines. Raises APIError if one is too long."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            raise invalid(f"A line of the batch is longer than {_MAX_LINE} bytes.")
        return lines

    def close(self) -> list[bytes]:
        """The last line, if it lacks its end."""
        return [self._rest] if self._rest.strip() else []


def call_in(provider: str, path: str, call: Any) -> SentRequest:
    """A call of a batch, for the estimate of its cost. Raises APIError if it names no model."""
    from asgi_aiproxy.prices import SentRequest

    body = call.get("body") or call.get("params") if isinstance(call, dict) else None
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(model, str) or not model:
        raise invalid("Each call of the batch must name its model.", "model")
    url = call.get("url")
    data = _json.dumps(body)
    return SentRequest(provider, model, url if isinstance(url, str) else path, data, body)


class CallReader:
    """An ASGI `send` that reads the calls in a file of a provider.

    `calls` are complete if `complete`; `error` says what is wrong with the file.
    """

    def __init__(self, provider: str, path: str) -> None:
        self.calls: list[SentRequest] = []
        self.complete = False
        self.error: APIError | None = None
        self._provider = provider
        self._path = path
        self._lines = Lines()
        self._found = False

    async def __call__(self, message: Message) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            self._found = message["status"] == 200
        elif self._found and self.error is None:
            try:
                self._read(self._lines.feed(message.get("body", b"")))
                if not message.get("more_body", False):
                    self._read(self._lines.close())
                    self.complete = True
            except APIError as error:  # (within a `send` it would be taken for the provider's)
                self.error = error

    def _read(self, lines: list[bytes]) -> None:
        for line in filter(bytes.strip, lines):
            try:
                call = _json.loads(line)
            except _json.NotJSONError:
                raise invalid("The file of the batch has a line that is not JSON.") from None
            self.calls.append(call_in(self._provider, self._path, call))


class ResultReader:
    """An ASGI `send` that adds up the tokens in results, and calls `ended` with them."""

    def __init__(self, send: Send, provider: str, ended: Callable[[Used], Awaitable[None]]) -> None:
        self._send = send
        self._provider = provider
        self._ended = ended
        self._lines = Lines()
        self._used: Used = []
        self._reads = False

    async def __call__(self, message: Message) -> None:
        """Take and send one ASGI message."""
        if message["type"] == "http.response.start":
            self._reads = message["status"] == 200
        elif self._reads:
            try:
                lines = self._lines.feed(message.get("body", b""))
            except APIError:
                self._reads = False  # (what was charged stays charged)
            else:
                self._used += self._usage(lines)
                if not message.get("more_body", False):
                    self._used += self._usage(self._lines.close())
                    await self._ended(self._used)
        await self._send(message)

    def _usage(self, lines: list[bytes]) -> Iterator[tuple[str, str, Usage]]:
        from asgi_aiproxy.dialects.usage_extraction import extract_usage

        for line in lines:
            body = _body(line)
            if body:
                model, usage = extract_usage(body, body)
                if usage is not None:
                    yield self._provider, model, usage


def _body(line: bytes) -> bytes:
    """The response in a line of results; empty if there is none."""
    try:
        result = _json.loads(line) if line.strip() else {}
    except _json.NotJSONError:
        return b""
    for outer, inner in (("response", "body"), ("result", "message")):
        found = result.get(outer) if isinstance(result, dict) else None
        body = found.get(inner) if isinstance(found, dict) else None
        if isinstance(body, dict):
            return _json.dumps(body)
    return b""


def ended_without_results(batch: Mapping[str, Any]) -> bool:
    """Whether a batch has ended and no call of it succeeded."""
    status = batch.get("status") or batch.get("processing_status")
    counts = batch.get("request_counts")
    if status not in ("failed", "expired", "cancelled", "completed", "ended"):
        return False
    if not isinstance(counts, dict):
        return bool(status == "failed")  # (before it began)
    return not counts.get("completed") and not counts.get("succeeded")


def unreadable_batch_error() -> APIError:
    """The error for a batch whose file cannot be read."""
    return APIError(
        ErrorKind.NOT_FOUND,
        "The file of the batch could not be read, so its cost is not known.",
        param="input_file_id",
        code="not_found",
    )
