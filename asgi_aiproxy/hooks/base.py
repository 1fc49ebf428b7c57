"""Hooks: functions that see, change, answer or refuse calls. Theory of operation.

Hooks are given to an app as `hooks=[...]`, and called in this order. A hook is an object with some
of the methods of `Hook`, or an async function, which is called as its `before`.

- `before(call)` runs when a request has been read and its caller is known, with the conversation
  that it refers to if the gateway keeps that, before any provider, key or budget is involved. It
  may change the call, answer it, or refuse it. What it changes is judged like a request of the
  caller: the model, the budget, the size.
- `filters(call)` makes filters that see the events of the response, and decide what the client is
  sent of it (see `asgi_aiproxy.exchange.guarded`).
- `after(call, record)` runs in the background, when the exchange has ended, however it ended.
- `observe(call, record)` does the same as a plain function, for what only computes: it needs no
  task, which costs more than most of what is observed.

A hook must not hold up the application: `before` and `after` are given `seconds`. One that raises
or takes longer has failed: with `on_failure="closed"` the request is answered with 503, with
"open" it continues without the hook; both are logged. An APIError is not a failure: the client is
sent it. Code that blocks the event loop is not interrupted; run it in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar

import msgspec

from asgi_aiproxy._asgi import Scope
from asgi_aiproxy.credentials import CREDENTIAL_HEADERS
from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.messages import EventFilter, Request, Response, Text
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers.emulator import Emulator
from asgi_aiproxy.usage.record import UsageRecord

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding"}
    | {"connection", "upgrade", "te", "trailer", "expect", "accept-encoding"}
)
_T = TypeVar("_T")
OnFailure = Literal["closed", "open"]


class Call:
    """One call, as hooks see it: a request in an ASGI `scope`.

    Attributes that a hook may only read:

    - `principal`: the caller.
    - `face`, `operation`: the client's API and what it requested, such as `openai_chat` and
      `chat.completions`.
    - `stream`: whether the client requested a stream.
    - `request_id`: its id in responses, errors and logs.
    - `members`: the members of the JSON body, still encoded.
    - `form_fields`: the texts of an upload's fields.
    - `headers`: the request's headers by their names in lower case, without credentials.
    - `state`: a dictionary for the hooks of this call.

    The properties `model`, `request`, `body`, `response` and `emulate` may be set.
    """

    def __init__(self, request: GatewayRequest, scope: Scope) -> None:
        self._sent = request
        self._scope = scope
        self.state: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"Call({self.operation}, model={self.model!r}, principal={self.principal.id!r})"

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The request's headers by their names in lower case, without credentials."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._scope["headers"]
            if name not in CREDENTIAL_HEADERS
        }

    @property
    def principal(self) -> Principal:
        """The caller."""
        return self._sent.principal

    @property
    def face(self) -> str:
        """The client's API."""
        return self._sent.face.name

    @property
    def operation(self) -> str:
        """What the client requested."""
        return self._sent.operation.name

    @property
    def stream(self) -> bool:
        """Whether the client requested a stream."""
        return self._sent.stream

    @property
    def request_id(self) -> str:
        """The id of the request in responses, errors and logs."""
        return self._sent.request_id

    @property
    def model(self) -> str:
        """The requested model. Set it to have another one called, if the caller may use it."""
        return self._sent.model

    @model.setter
    def model(self, name: str) -> None:
        self._replace(model=checked_value("model", name, str))

    @property
    def request(self) -> Request | None:
        """The request in its neutral form; None if it is not a chat request.

        A changed one is translated for the provider, also if that has the client's API. Raises
        APIError if the client's request is invalid.
        """
        return self._sent.request if self._sent.operation.chat else None

    @request.setter
    def request(self, changed: Request) -> None:
        if not self._sent.operation.chat:
            raise ConfigurationError(
                f"a hook cannot set the request of {self.operation}, which is not a chat request: "
                "change its body."
            )
        self._replace(changed=checked_value("request", changed, Request))

    @property
    def body(self) -> bytes:
        """The JSON body as the client sent it; empty for an upload.

        Raises APIError if it is set to an invalid one.
        """
        return self._sent.body

    @body.setter
    def body(self, body: bytes) -> None:
        if self._sent.upload is not None:
            raise ConfigurationError("a hook cannot set the body of an upload, which is streamed.")
        head = self._sent.face.summarize(self._sent.operation, checked_value("body", body, bytes))
        self._replace(
            body=body,
            model=head.model,
            stream=head.stream,
            usage_wanted=head.usage_wanted,
            fields=head.fields,
            changed=None,
        )

    def send_header(self, name: str, value: str) -> None:
        """Add a header to the requests to providers.

        Raises ConfigurationError for one that carries a credential or frames the request.
        """
        lower = name.lower()
        valid = _HEADER_NAME.fullmatch(lower) and value.isprintable() and value.isascii()
        if not valid or lower in _OWN_HEADERS or lower.encode() in CREDENTIAL_HEADERS:
            raise ConfigurationError(f"a hook cannot send the header {name!r} to providers.")
        self._replace(sent_headers={**self._sent.sent_headers, lower: value})

    @property
    def members(self) -> Mapping[str, msgspec.Raw]:
        """The members of the JSON body, still encoded; empty for an upload."""
        return self._sent.fields

    @property
    def form_fields(self) -> Sequence[tuple[str, str]]:
        """The names and texts of the fields of an upload, without its files; else empty."""
        return self._sent.form.fields if self._sent.form is not None else ()

    @property
    def response(self) -> Response | None:
        """The response that a hook has given, so that no provider is called."""
        return self._sent.answer

    @response.setter
    def response(self, response: Response) -> None:
        if not self._sent.operation.chat:
            raise ConfigurationError(f"a hook cannot answer {self.operation}, only chat requests.")
        self._replace(answer=checked_value("response", response, Response))

    @property
    def emulate(self) -> Emulator | None:
        """What is emulated for this call, instead of what its target says; None by default."""
        return self._sent.emulate

    @emulate.setter
    def emulate(self, emulator: Emulator) -> None:
        self._replace(emulate=emulator)

    def answer(self, text: str) -> None:
        """Answer the call with a text; no provider is called."""
        block = Text(checked_value("answer", text, str))
        self.response = Response(id=self.request_id, model=self.model, blocks=(block,))

    def refuse(self, message: str, *, status: int = 403, code: str = "refused_by_policy") -> None:
        """Refuse the call: raises APIError with this message for the client.

        Raises ConfigurationError if `status` is not that of an error.
        """
        if not 400 <= status <= 599:
            raise ConfigurationError(f"a hook refuses with a status from 400 to 599, not {status}.")
        raise APIError(ErrorKind.FORBIDDEN, message, status=status, code=code)

    def _replace(self, **changes: Any) -> None:
        self._sent = msgspec.structs.replace(self._sent, **changes)

    def to_gateway_request(self) -> GatewayRequest:
        """The request as the hooks have left it."""
        return self._sent


def checked_value(name: str, value: Any, kind: type[_T]) -> _T:
    """A value that a hook sets. Raises TypeError if it is not of its kind."""
    if not isinstance(value, kind):
        raise TypeError(f"call.{name} must be {kind.__name__}, not {type(value).__name__}")
    return value


class Hook:
    """Base class of hooks: override what is needed.

    - `seconds`: the time limit of `before` and of `after`.
    - `on_failure`: whether a request is refused (`"closed"`) or continues (`"open"`) if the hook
      fails.
    """

    seconds: float = 5.0
    on_failure: OnFailure = "closed"

    async def before(self, call: Call) -> None:
        """See the call before it goes out. Raises APIError to refuse it."""

    def filters(self, call: Call) -> Sequence[EventFilter]:
        """Make the filters for one response."""
        return ()

    async def after(self, call: Call, record: UsageRecord) -> None:
        """See the usage record of the exchange."""

    def observe(self, call: Call, record: UsageRecord) -> None:
        """See the usage record of the exchange. It must not block the event loop."""


BeforeHook = Callable[[Call], Awaitable[None]]
