"""What a client asks for, read as far as the gateway needs it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from functools import cached_property

import msgspec

from asgi_aiproxy.dialects.base import InboundDialect, Operation
from asgi_aiproxy.exchange.admission import AdmissionControl
from asgi_aiproxy.messages import Request
from asgi_aiproxy.principal import ANONYMOUS, Principal

# A body that passes through unread, asking for a model: the bytes, and how many if that is known.
Upload = Callable[[str], tuple[AsyncIterable[bytes], int | None]]


class GatewayRequest(msgspec.Struct, frozen=True, dict=True):
    """One request of a client, on its way through the relay.

    `fields` are the members of a JSON body, still encoded, and `others` the models that it names
    beside `model`, if its caller is held to models or to a budget; an `upload` comes with its own
    `content_type` and `length` (0: not known) and can be sent once. `provider`, `key_id`,
    `own_key` and `affinity` are the caller's wishes for who serves it and with which key. `gate`
    is asked before it goes out. `request_id` is what its answer, errors and logs call it.
    """

    face: InboundDialect
    operation: Operation
    model: str
    stream: bool = False
    usage_wanted: bool = False
    body: bytes = b""
    fields: Mapping[str, msgspec.Raw] = {}
    others: tuple[str, ...] = ()
    upload: Upload | None = None
    length: int = 0
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    principal: Principal = ANONYMOUS
    provider: str = ""
    key_id: str = ""
    own_key: str = ""
    affinity: str = ""
    gate: AdmissionControl | None = None
    request_id: str = ""

    def __repr__(self) -> str:
        return f"Call({self.operation.name}, model={self.model!r}, stream={self.stream})"

    @cached_property
    def request(self) -> Request:
        """The neutral form: read only if the call is translated. Raises APIError."""
        return self.face.decode_request(self.operation, self.body)
