"""A client's request, parsed as far as the gateway needs it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from functools import cached_property

import msgspec

from asgi_aiproxy.dialects.base import InboundDialect, Operation
from asgi_aiproxy.exchange.admission import AdmissionControl
from asgi_aiproxy.exchange.attribution import NO_LABELS, Labels
from asgi_aiproxy.messages import EventFilter, Message, Request, Response, ToolResult
from asgi_aiproxy.operations.forms import Form
from asgi_aiproxy.principal import ANONYMOUS, Principal
from asgi_aiproxy.providers.emulator import Emulator
from asgi_aiproxy.usage.record import UsageRecord

# Makes the body of an upload for the model it is called with: the bytes, and their number if known.
Upload = Callable[[str], tuple[AsyncIterable[bytes], int | None]]


# A longer request body is translated in a thread.
_LARGE_BODY_BYTES = 64 * 1024


class GatewayRequest(msgspec.Struct, frozen=True, dict=True):
    """One request of a client.

    - `face`, `operation`: the API that the client speaks, and what it requested.
    - `model`, `stream`: the requested model, and whether the response is to be streamed.
    - `usage_wanted`: whether the client requested token counts at the end of a stream.
    - `body`, `fields`: a JSON body, and its members, still encoded.
    - `others`: the models named in the body beside `model`; only set for callers that may not use
      all models, or that have a budget.
    - `upload`, `length`, `content_type`: a multipart body, which can be sent once, its size in
      bytes (0: unknown) and its content type.
    - `form`: a multipart body that was read as a whole, because a target converts it.
    - `headers`, `query`: what of these a provider of the same dialect is sent.
    - `principal`: the caller.
    - `provider`, `key_id`, `own_key`, `affinity`: the provider and the key that the caller
      requested, the key that it brought, and its session.
    - `gate`: the admission control to ask before the request is sent.
    - `history_tokens`: those of the conversation that the provider adds to the request by itself,
      if they are known.
    - `request_id`: its id in responses, errors and logs.
    - `changed`: the neutral form that is sent instead of the body, if a hook changed it.
    - `emulate`: what is emulated instead of what the target says.
    - `sent_headers`: further headers for the provider, by their names in lower case.
    - `answer`: the response, if a hook has answered the request; no provider is called.
    - `filters`: makes the filters that the events of a response pass through, for each attempt.
    - `labels`: the session and the tags that it is attributed to.
    - `ended`: called with the usage record.
    - `conversation`: the provider's id of the conversation to continue; empty to begin one, None if
      the client wants none.
    - `results`: what results of tool calls are sent as, by the ids that the client has of them.
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
    form: Form | None = None
    length: int = 0
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    query: str = ""
    principal: Principal = ANONYMOUS
    provider: str = ""
    key_id: str = ""
    own_key: str = ""
    affinity: str = ""
    gate: AdmissionControl | None = None
    history_tokens: int = 0
    request_id: str = ""
    changed: Request | None = None
    emulate: Emulator | None = None
    sent_headers: Mapping[str, str] = {}
    answer: Response | None = None
    filters: Callable[[], Sequence[EventFilter]] | None = None
    ended: Callable[[UsageRecord], None] | None = None
    labels: Labels = NO_LABELS
    conversation: str | None = None
    results: Mapping[str, ToolResult] = {}

    def __repr__(self) -> str:
        return f"GatewayRequest({self.operation.name}, model={self.model!r}, stream={self.stream})"

    @property
    def large(self) -> bool:
        """Whether the request is translated in a thread: a long body, or a form with files."""
        return len(self.body) > _LARGE_BODY_BYTES or self.form is not None

    @property
    def sent_once(self) -> bool:
        """Whether the request cannot be sent again: an upload that is passed on as it arrives."""
        return self.upload is not None and self.form is None

    @cached_property
    def request(self) -> Request:
        """The neutral form, decoded when the request is translated. Raises APIError."""
        if self.changed is not None:
            return self.changed
        request = self.face.decode_request(self.operation, self.body)
        if self.results:
            messages = tuple(self._with_results(message) for message in request.messages)
            request = msgspec.structs.replace(request, messages=messages)
        if self.conversation is None:
            return request
        return msgspec.structs.replace(request, conversation=self.conversation)

    def _with_results(self, message: Message) -> Message:
        parts = tuple(
            msgspec.structs.replace(part, id=known.id, extra={**part.extra, **known.extra})
            if isinstance(part, ToolResult) and (known := self.results.get(part.id)) is not None
            else part
            for part in message.parts
        )
        return msgspec.structs.replace(message, parts=parts)
