"""Errors of the relay of One API: the gateway's own in its form, those of vendors with the status
that the vendor sent, also for a key of the gateway that it refuses.
"""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import UPSTREAM_STATUS, Message, Send
from asgi_aiproxy.errors import APIError, ErrorKind

ERROR_TYPE = "one_api_error"
_KINDS = {400: ErrorKind.INVALID, 401: ErrorKind.UNAUTHORIZED, 403: ErrorKind.FORBIDDEN,
          404: ErrorKind.NOT_FOUND, 503: ErrorKind.OVERLOADED}  # fmt: skip


def relay_error(status: int, message: str, code: str | None = None, param: str = "") -> APIError:
    """Return an error of the gateway itself."""
    return APIError(_KINDS[status], message, status=status, code=code, param=param or None)


def no_channel_error(group: str, model: str) -> APIError:
    """Return the error (503) for a model that no channel of a group serves."""
    return relay_error(503, _no_channel_message(group, model))


def _no_channel_message(group: str, model: str) -> str:
    return (
        f"No channel is available for the model {model!r} in the group {group!r}. Check the models "
        "and groups of the channels."
    )


def encode_relay_error(error: APIError) -> bytes:
    """Write an error of the gateway itself in the form of One API."""
    body = {"message": error.message, "type": ERROR_TYPE, "param": error.param or ""}
    return _json.dumps({"error": {**body, "code": error.code}})


class RelayErrors:
    """A `send` that writes the gateway's own errors in the form of One API, and gives those of
    vendors the vendor's status.
    """

    def __init__(self, send: Send, group: str) -> None:
        self._send = send
        self._group = group
        self._start: Message | None = None
        self._pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            if message["status"] >= 400 and b"aiproxy-provider" not in headers:
                self._start = message
            else:
                status = int(headers.get(UPSTREAM_STATUS) or message["status"])
                await self._send({**message, "status": status})
        elif self._start is not None:
            self._pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish(self._start, b"".join(self._pieces))
        else:
            await self._send(message)

    async def _finish(self, start: Message, body: bytes) -> None:
        status = start["status"]
        try:
            error = _json.loads(body)["error"]
            status, error = self._converted(status, error)
            body = _json.dumps({"error": error})
        except (ValueError, KeyError, TypeError):
            pass
        kept = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        headers = [*kept, (b"content-length", b"%d" % len(body))]
        await self._send({**start, "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _converted(self, status: int, error: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        code, message = error.get("code"), str(error.get("message", ""))
        if status == 404 and (code == "model_not_found" or error.get("param") == "provider"):
            status, code, message = 503, None, _no_channel_message(self._group, "of the request")
        elif status == 429 and code == "insufficient_quota":
            of_user = "of your account" in message
            code = "insufficient_user_quota" if of_user else "pre_consume_token_quota_failed"
            status = 403
        elif status == 400 and code == "missing_required_parameter":
            code = "required_field_missing"
        elif status == 400 and code is None:
            code = "bind_request_body_failed"
        error = {"message": message, "type": ERROR_TYPE, "param": error.get("param") or ""}
        return status, {**error, "code": code}
