"""What one attempt sends to a provider, and how its answer becomes the client's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._parsing import unparsable_response_error
from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.dialects.openai_chat.native_stream import openai_usage
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.messages import Usage, unfold
from asgi_aiproxy.prices import SentRequest
from asgi_aiproxy.providers.base import Provider, Target
from asgi_aiproxy.request_limits import RequestLimits
from asgi_aiproxy.translate import (
    BufferedTranslator,
    NativeStreamTranslator,
    RawTranslator,
    StreamTranslator,
    Translator,
    collect_stream,
)

_STREAMS = frozenset({"text/event-stream", "application/x-ndjson", "application/stream+json"})


class PreparedRequest(msgspec.Struct, frozen=True, gc=False):
    """A target and what it is sent; `native_operations` says that the call passes through in its
    dialect.

    `body` is the draft's, encoded.
    """

    target: Target
    native: bool
    draft: ProviderRequest
    body: bytes | None = None

    def sent(self, call: GatewayRequest) -> SentRequest:
        """What a budget is reserved by."""
        target, draft = self.target, self.draft
        name = target.provider.name
        if call.upload is not None:
            return SentRequest(name, target.model, draft.path, length=call.length)
        return SentRequest(name, target.model, draft.path, self.body or b"", draft.body)


def prepare_request(
    call: GatewayRequest, target: Target, *, strict: bool, limits: RequestLimits
) -> PreparedRequest:
    """How a target is asked. Raises APIError if it can not serve such calls."""
    check_model(target.model)
    native = call.operation.name in target.provider.native_operations
    if native:
        draft = call.face.native_request(
            call.operation, target.model, call.fields, stream=call.stream
        )
        if call.headers:
            draft = msgspec.structs.replace(draft, headers=call.headers)
    elif call.operation.chat:
        limits.check(call.fields, call.body)
        try:
            request = msgspec.structs.replace(call.request, model=target.model)
            draft = target.provider.dialect.encode_request(request)
        except RecursionError:
            raise invalid("The request is nested too deeply to be translated.") from None
    else:
        raise APIError(
            ErrorKind.NOT_FOUND,
            f"The provider {target.provider.name!r} of model {call.model!r} does not offer "
            f"{call.operation.name}.",
            code="unsupported_operation",
        )
    draft = target.provider.transform_request(draft)
    if draft.ignored and strict:
        raise invalid(
            f"{target.provider.name} can not carry: {', '.join(draft.ignored)}.", draft.ignored[0]
        )
    return PreparedRequest(target, native, draft, _json.dumps(draft.body) if draft.body else None)


class Plans:
    """How one call is put to its targets. What was planned ahead is kept until it is taken."""

    def __init__(self, call: GatewayRequest, *, strict: bool, limits: RequestLimits) -> None:
        self._call = call
        self._strict = strict
        self._limits = limits
        self._ahead: dict[int, PreparedRequest | APIError] = {}

    def prepare(self, targets: Sequence[Target]) -> None:
        """Plan ahead for those of the targets for which that is not done: a thread may do it."""
        for target in targets:
            if id(target) not in self._ahead:
                self._ahead[id(target)] = self._plan(target)

    def _plan(self, target: Target) -> PreparedRequest | APIError:
        try:
            return prepare_request(self._call, target, strict=self._strict, limits=self._limits)
        except APIError as error:
            return error

    def take(self, target: Target) -> PreparedRequest:
        """How a target is asked. Raises APIError if it can not serve the call."""
        found = self._ahead.pop(id(target), None) or self._plan(target)
        if isinstance(found, APIError):
            raise found
        return found

    def sent(self, targets: Sequence[Target]) -> Sequence[SentRequest]:
        """What leaves for each target that can serve the call."""
        self.prepare(targets)
        plans = [
            planned for planned in self._ahead.values() if isinstance(planned, PreparedRequest)
        ]
        found = [planned.sent(self._call) for planned in plans]
        others = self._call.others
        return found + [msgspec.structs.replace(s, model=m) for s in found for m in others]


def select_translator(
    call: GatewayRequest, provider: Provider, native: bool, media_type: str
) -> Translator:
    """What turns an answer of this content type into the client's."""
    face, language = call.face, provider.dialect
    kind = media_type.partition(";")[0].strip().lower()
    if kind == "text/html":
        return BufferedTranslator(_page)
    if not call.operation.chat:
        return BufferedTranslator(_passing) if kind == "application/json" else RawTranslator()
    streams = kind in _STREAMS or (call.stream and kind != "application/json")
    if native and streams == call.stream:
        echo = face.native_stream(usage_wanted=call.usage_wanted, exact=provider.strict_format)
        if call.stream:
            return NativeStreamTranslator(echo)
        return BufferedTranslator(lambda body: (echo.whole(body), echo.model, echo.usage))
    if call.stream and streams:
        return StreamTranslator(
            language.framer(kind), language.decoder(), face.encoder(call.request)
        )
    return BufferedTranslator(partial(_retell, call, provider, kind, streams))


def _retell(
    call: GatewayRequest, provider: Provider, kind: str, streams: bool, body: bytes
) -> tuple[bytes, str, Usage | None]:
    """A whole answer in another dialect, or in the other of two forms (streamed, whole)."""
    language = provider.dialect
    if streams:
        response = collect_stream(language, language.framer(kind), body)
    else:
        response = language.decode_response(body)
    if call.stream:
        encoder = call.face.encoder(call.request)
        out = b"".join([encoder.feed(event) for event in unfold(response)])
    else:
        out = call.face.encode_response(response, call.request)
    return out, response.model, response.usage


def _passing(body: bytes) -> tuple[bytes, str, Usage | None]:
    """A JSON answer that passes through; usage is read if it is where OpenAI has it."""
    return body, *openai_usage(body)


def _page(body: bytes) -> tuple[bytes, str, Usage | None]:
    raise unparsable_response_error(200, body)
