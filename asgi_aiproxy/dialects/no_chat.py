"""`NoChat`: the dialect of vendors that have operations besides chat only.

Their errors are read in the forms that they document: ElevenLabs `{"detail": {"status",
"message"}}`, Deepgram `{"err_code", "err_msg"}`, Black Forest Labs `{"detail": ...}`, and what
OpenAI's dialect reads.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import OutboundDialect, ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind, error_kind_for_status
from asgi_aiproxy.messages import Request, Response


class NoChat(OutboundDialect):
    """Refuses chat requests, so that another target may answer; reads errors.

    `models` is the path of the list of models, `members` that of the list in it; both are empty if
    the list itself is the response.
    """

    name: ClassVar[str] = "no_chat"
    native_errors: ClassVar[bool] = False

    def __init__(self, models: str = "/v1/models", *, members: str = "", id: str = "id") -> None:
        self._models = models
        self._members = members
        self._id = id

    def encode_request(self, request: Request) -> ProviderRequest:
        """Raises APIError: there is no chat."""
        raise APIError(
            ErrorKind.NOT_FOUND,
            f"The provider of model {request.model!r} does not offer chat.",
            code="unsupported_operation",
        )

    def decode_response(self, body: bytes) -> Response:
        """Not used: no chat request is sent."""
        self._no_chat()

    def decoder(self) -> NoReturn:
        """Not used: no chat request is sent."""
        self._no_chat()

    def _no_chat(self) -> NoReturn:
        raise NotImplementedError("chat requests are refused")

    def decode_error(self, status: int, body: bytes) -> APIError:
        """Read an error response."""
        answer = _parsing.parse_object(body) or {}
        detail = answer.get("detail", answer)
        if isinstance(detail, list):  # of a validation
            detail = next(iter(_parsing.objects(detail)), {})
        text = detail if isinstance(detail, str) else ""
        for name in ("message", "err_msg", "msg", "error", "reason"):
            text = text or _parsing.get_text(detail, name)
        if not text:
            return _parsing.unparsable_response_error(status, body)
        kind = error_kind_for_status(status)
        code = _parsing.get_text(detail, "status") or _parsing.get_text(detail, "err_code")
        return APIError(
            kind,
            text,
            status=_parsing.client_status(status, kind),
            upstream_status=status,
            words=_parsing.words(code, _parsing.get_text(detail, "code")),
        )

    def models_request(self) -> ProviderRequest:
        """The list of models."""
        return ProviderRequest(self._models, {})

    def decode_models(self, body: bytes) -> tuple[str, ...]:
        """Read the list of models; raises ValueError if it is not one."""
        if not self._members:
            body = b'{"models":' + body + b"}"
        found = (_json.loads(body) or {}).get(self._members or "models")
        if not isinstance(found, list):
            raise ValueError("it is not a list of models")
        names = (_parsing.get_text(each, self._id) for each in _parsing.objects(found))
        return tuple(dict.fromkeys(name for name in names if name))
