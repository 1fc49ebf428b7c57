"""What an attempt sends to a provider, and which translator reads its response. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects._parsing import unparsable_response_error
from asgi_aiproxy.dialects.base import (
    STREAM_TYPES,
    OutboundDialect,
    ProviderRequest,
    ResponseReader,
)
from asgi_aiproxy.dialects.tool_names import OriginalNames, valid_names
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.exchange.continuation import MEMBER as CONVERSATION, ResponseWriter
from asgi_aiproxy.exchange.guarded import GuardedBody, GuardedTranslator
from asgi_aiproxy.exchange.relay import CommittedResponse
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.framing import Framer
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import EventFilter, Request, Response, Usage, unfold
from asgi_aiproxy.providers.base import Provider, Target
from asgi_aiproxy.providers.emulator import Ask, EmulatedRequest
from asgi_aiproxy.request_limits import RequestLimits
from asgi_aiproxy.translate import (
    BufferedTranslator,
    NativeStreamTranslator,
    RawStreamTranslator,
    RawTranslator,
    ReframedTranslator,
    StreamTranslator,
    TranslatedBy,
    Translator,
    collect_stream,
)
from asgi_aiproxy.upstream.base import UpstreamRequest

if TYPE_CHECKING:
    from asgi_aiproxy.exchange.conversions import Conversion
    from asgi_aiproxy.prices import SentRequest


class PreparedRequest(msgspec.Struct, frozen=True, gc=False):
    """A target and the request for it.

    `native` means that the client's dialect is also the provider's, so that the request is not
    translated. `body` is the encoded body of `draft`. `conversion` is set for operations other than
    chat that are converted, `emulated` for a chat request with features that the target lacks.
    `tool_names` has the client's names of tools by those that are sent, where they differ.
    """

    target: Target
    native: bool
    draft: ProviderRequest
    body: bytes | None = None
    conversion: Conversion | None = None
    emulated: EmulatedRequest | None = None
    tool_names: Mapping[str, str] = {}

    def known_response(self) -> CommittedResponse | None:
        """The response, if it is known without sending the request."""
        if self.conversion is None or self.conversion.response is None:
            return None
        return CommittedResponse(
            media_type="",
            first=self.conversion.response,
            whole=True,
            headers=(),
            ignored=self.draft.ignored,
            provider=self.target.provider.name,
            key_id="",
            redactor=None,
            estimated=True,
        )

    def to_upstream_request(self, request: GatewayRequest, key: Key | None) -> UpstreamRequest:
        """The request with its key. An upload that passes through can be sent once."""
        provider, draft = self.target.provider, self.draft
        streamed = request.stream or request.upload is not None or request.operation.raw
        if draft.content is not None:
            sent = draft.content
            content = {"content-type": sent.media_type, "content-length": str(sent.length)}
            body: AsyncIterable[bytes] = sent.stream()
        elif request.upload is not None and self.native:
            body, length = request.upload(self.target.model)
            content = {"content-type": request.content_type}
            if length is not None:
                content["content-length"] = str(length)
        else:
            method = request.operation.method
            return provider.request(method, draft, key, streamed=streamed, body=self.body)
        return provider.request("POST", draft, key, streamed=streamed, body=body, content=content)

    def media_type(self, received: str, translator: Translator) -> str:
        """The content type of the client's response, of which `received` is the provider's.

        Empty: JSON.
        """
        inner = translator.inner if isinstance(translator, GuardedBody) else translator
        if isinstance(inner, RawTranslator):
            return received
        return self.conversion.media_type if self.conversion is not None else ""

    def sent(self, request: GatewayRequest) -> SentRequest:
        """What the cost of the request is estimated from."""
        from asgi_aiproxy.prices import SentRequest

        target, draft = self.target, self.draft
        name = target.provider.name
        counted = Usage()
        if request.upload is not None or request.operation.converts:
            from asgi_aiproxy.exchange.conversions import units

            counted = units(request)
        if request.upload is not None:
            return SentRequest(name, target.model, draft.path, length=request.length, units=counted)
        body, fields = self.body or b"", draft.body
        if request.operation.converts == "embeddings" and self.conversion is not None:
            body, fields = request.body, request.fields  # `draft` may be the first batch of several
        return SentRequest(
            name,
            target.model,
            draft.path,
            body,
            fields,
            history=request.history_tokens,
            units=counted,
        )


def prepare_request(
    request: GatewayRequest, target: Target, *, strict: bool, limits: RequestLimits
) -> PreparedRequest:
    """Prepare a request for one target.

    `strict` refuses what the target cannot carry, and `limits` what is too large to be translated.
    Raises APIError if the target cannot serve the request.
    """
    if not request.operation.resource:
        check_model(target.model)
    emulator = request.emulate or target.emulate or target.provider.emulate
    emulated: EmulatedRequest | None = None
    if emulator is not None and request.operation.chat:
        emulated = emulator.apply(request.request, request.principal.id)
    native = (
        request.changed is None
        and (emulated is None or emulated.request is None)
        and request.operation.name in target.provider.native_operations
    )
    if request.operation.chat and (request.filters is not None or emulated is not None):
        # the response must be decoded
        native = native and isinstance(request.face, OutboundDialect)
    conversion: Conversion | None = None
    tool_names: Mapping[str, str] = {}
    if native:
        draft, conversion = _native_request(request, target)
    else:
        limits.check(request.fields, request.body)
        try:
            if request.operation.chat:
                neutral = emulated.request if emulated is not None else None
                neutral = neutral if neutral is not None else request.request
                neutral = msgspec.structs.replace(neutral, model=target.model)
                dialect = target.provider.dialect
                neutral, tool_names = valid_names(neutral, dialect.tool_names)
                draft = dialect.encode_request(neutral)
            else:
                from asgi_aiproxy.exchange.conversions import convert  # (with other dialects)

                conversion = convert(request, target, strict=strict)
                draft = conversion.draft
        except RecursionError:
            raise invalid("The request is nested too deeply to be translated.") from None
    if request.sent_headers:
        draft = with_headers(draft, request.sent_headers)
    draft = target.provider.transform_request(draft)
    if request.conversation is not None and (
        native or not target.provider.dialect.keeps_conversations
    ):
        draft = msgspec.structs.replace(draft, ignored=(*draft.ignored, CONVERSATION))
    if draft.ignored and strict:
        raise invalid(
            f"{target.provider.name} cannot carry: {', '.join(draft.ignored)}.", draft.ignored[0]
        )
    lost = () if native else request.face.features(request.headers)
    if lost:
        draft = msgspec.structs.replace(draft, ignored=(*draft.ignored, *lost))
    body = _json.dumps(draft.body) if draft.body else None
    return PreparedRequest(target, native, draft, body, conversion, emulated, tool_names)


def with_headers(draft: ProviderRequest, headers: Mapping[str, str]) -> ProviderRequest:
    """The request with further headers, such as those that hooks send."""
    if not headers:
        return draft
    return msgspec.structs.replace(draft, headers={**draft.headers, **headers})


def _native_request(
    request: GatewayRequest, target: Target
) -> tuple[ProviderRequest, Conversion | None]:
    """The client's request for a target with the same API, and how it is split if it must be."""
    draft = request.face.native_request(
        request.operation, target.model, request.fields, stream=request.stream
    )
    if request.headers or request.query:
        # (Platforms that host an API have paths and queries of their own.)
        dialect: object = target.provider.dialect
        query = (dialect is request.face and request.query) or draft.query
        draft = msgspec.structs.replace(draft, headers=request.headers, query=query)
    if request.operation.converts != "embeddings":
        return draft, None
    from asgi_aiproxy.exchange.conversions import in_batches

    conversion = in_batches(request, draft)
    return (conversion.draft if conversion is not None else draft), conversion


class PreparedRequests(msgspec.Struct, frozen=True):
    """Prepares one request for its targets; a prepared one is kept until it is taken.

    `strict` and `limits` are those of `prepare_request`.
    """

    request: GatewayRequest
    strict: bool
    limits: RequestLimits
    kept: dict[int, PreparedRequest | APIError] = {}  # by the id of their target

    def prepare(self, targets: Sequence[Target]) -> None:
        """Prepare the request for those targets that lack it; may run in a thread."""
        for target in targets:
            if id(target) not in self.kept:
                try:
                    self.kept[id(target)] = self.take(target)
                except APIError as error:
                    self.kept[id(target)] = error

    def take(self, target: Target) -> PreparedRequest:
        """Return the request for a target. Raises APIError if it cannot serve the request."""
        found = self.kept.pop(id(target), None) if self.kept else None
        if found is None:
            return prepare_request(self.request, target, strict=self.strict, limits=self.limits)
        if isinstance(found, APIError):
            raise found
        return found

    def sent(self, targets: Sequence[Target]) -> Sequence[SentRequest]:
        """What would be sent to each target that can serve the request."""
        self.prepare(targets)
        found = [
            prepared.sent(self.request)
            for prepared in self.kept.values()
            if isinstance(prepared, PreparedRequest)
        ]
        others = self.request.others
        return found + [msgspec.structs.replace(s, model=m) for s in found for m in others]


def select_translator(
    request: GatewayRequest,
    prepared: PreparedRequest,
    media_type: str,
    ask: Ask,
    write: Callable[[OutboundDialect], ResponseWriter],
) -> Translator:
    """Return the translator for a response of this content type.

    `ask` sends a further request to the target, for features that are emulated. `write` makes what
    writes responses of a dialect for the client.
    """
    provider, native, face = prepared.target.provider, prepared.native, request.face
    # The provider may have several APIs: the response is one of the API that was called. (A
    # platform that hosts the client's API may frame it in its own way: its dialect has its name.)
    dialect = provider.dialect
    if native and face.name != dialect.name and isinstance(face, OutboundDialect):
        dialect = face
    kind = media_type.partition(";")[0].strip().lower()
    if kind == "text/html":
        return BufferedTranslator(TranslatedBy(_reject_html))
    filters = request.filters() if request.filters is not None else ()
    if not request.operation.chat:
        made = _operation_translator(request, prepared.conversion, kind)
        return _guarded_body(made, filters, prepared.media_type(media_type, made))
    streams = kind in STREAM_TYPES or (request.stream and kind != "application/json")
    names = prepared.tool_names
    reader: ResponseReader = OriginalNames(dialect, names) if names else dialect
    if filters or prepared.emulated is not None:
        framer = dialect.framer(kind) if streams else None
        writer = write(dialect), request.stream
        return _guarded_translator(prepared, filters, framer, reader, ask, *writer)
    if native and streams == request.stream:
        return _native_translator(request, provider, dialect, kind)
    if request.stream and streams:
        encoder = write(dialect).encoder()
        return StreamTranslator(dialect.framer(kind), reader.decoder(), encoder)
    written = write(dialect), request.stream
    framer = dialect.framer(kind) if streams else None
    return BufferedTranslator(TranslatedBy(partial(_translate_whole, *written, reader, framer)))


def _operation_translator(
    request: GatewayRequest, conversion: Conversion | None, kind: str
) -> Translator:
    """Return the translator for an operation other than chat."""
    from asgi_aiproxy.exchange.conversions import read_usage, units  # (with all operations)

    if conversion is not None and conversion.translate is not None:
        translate, earlier = conversion.translate, conversion.earlier
        return BufferedTranslator(TranslatedBy(lambda body: translate((*earlier, body))))
    if request.operation.resource:
        return RawTranslator()  # the usage in it is that of another request
    if kind == "text/event-stream":
        return RawStreamTranslator(units(request))
    if kind != "application/json":
        return RawTranslator(units(request))
    return BufferedTranslator(TranslatedBy(lambda body: (body, *read_usage(request, body))))


def _guarded_body(
    translator: Translator, filters: Sequence[EventFilter], content_type: str
) -> Translator:
    """The translator of a response without events: filters see its texts, media pass."""
    if not filters:
        return translator
    from asgi_aiproxy.exchange.guarded_content import checked_body, is_media

    content_type = content_type or "application/json"
    if is_media(content_type):
        return translator
    return GuardedBody(translator, partial(checked_body, filters, content_type))


def _guarded_translator(
    prepared: PreparedRequest,
    filters: Sequence[EventFilter],
    framer: Framer | None,
    reader: ResponseReader,
    ask: Ask,
    writer: ResponseWriter,
    stream: bool,
) -> GuardedTranslator:
    """The translator of a response that filters see.

    `framer` is that of a stream; `stream`: the client requested one.
    """
    emulated = prepared.emulated
    guarded: GuardedTranslator

    async def ask_and_count(further: Request) -> Response:
        response = await ask(further)
        guarded.count_further(response.usage)
        return response

    guarded = GuardedTranslator(
        filters,
        emulation=emulated.make_filter(ask_and_count) if emulated is not None else None,
        emulated=emulated.features if emulated is not None else (),
        stream=(framer, reader.decoder()) if framer is not None else None,
        decode=reader.decode_response,
        encoder=writer.encoder() if stream else None,
        encode=writer.whole,
    )
    return guarded


def _native_translator(
    request: GatewayRequest, provider: Provider, dialect: OutboundDialect, kind: str
) -> Translator:
    """The translator of a response that passes through."""
    reader = request.face.native_stream(
        usage_wanted=request.usage_wanted, strict_format=provider.strict_format
    )
    if not request.stream:
        return BufferedTranslator(reader)
    reframer = dialect.reframer(kind)
    if reframer is not None:
        return ReframedTranslator(reframer, NativeStreamTranslator(reader))
    return NativeStreamTranslator(reader)


def _translate_whole(
    writer: ResponseWriter,
    stream: bool,
    reader: ResponseReader,
    framer: Framer | None,
    body: bytes,
) -> tuple[bytes, str, Usage | None]:
    """Translate a complete response into another dialect, or between stream and single body.

    `framer` is that of a body that is a stream.
    """
    if framer is not None:
        response = collect_stream(reader, framer, body)
    else:
        response = reader.decode_response(body)
    if stream:
        encoder = writer.encoder()
        out = b"".join([encoder.feed(event) for event in unfold(response)])
    else:
        out = writer.whole(response)
    return out, response.model, response.usage


def _reject_html(body: bytes) -> tuple[bytes, str, Usage | None]:
    raise unparsable_response_error(200, body)
