"""Whole responses and usage: Google's format to the neutral one, and back.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.gemini.carriers import CarriedThoughts, encode_carrier
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.messages import (
    Block,
    Citation,
    Extra,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
)

NAME = "gemini"
DEFAULT_TYPE = {  # of a file whose media type is not known
    "image": "image/jpeg",
    "audio": "audio/wav",
    "video": "video/mp4",
    "document": "application/pdf",
}

STOPS = {
    "STOP": StopReason.END,
    "MAX_TOKENS": StopReason.LENGTH,
    "SAFETY": StopReason.FILTER,
    "RECITATION": StopReason.FILTER,
    "BLOCKLIST": StopReason.FILTER,
    "PROHIBITED_CONTENT": StopReason.FILTER,
    "SPII": StopReason.FILTER,
    "IMAGE_SAFETY": StopReason.FILTER,
    "IMAGE_PROHIBITED_CONTENT": StopReason.FILTER,
    "IMAGE_RECITATION": StopReason.FILTER,
    "MODEL_ARMOR": StopReason.FILTER,
    "LANGUAGE": StopReason.FILTER,
}
WORDS = {
    StopReason.END: "STOP",
    StopReason.LENGTH: "MAX_TOKENS",
    StopReason.TOOLS: "STOP",
    StopReason.FILTER: "SAFETY",
    StopReason.OTHER: "OTHER",
}


def failed(word: str, message: str) -> APIError | None:
    """The error for a response without content with the finish reason `word`; None if that is not a
    failure.

    All finish reasons but those in STOPS are failures: MALFORMED_FUNCTION_CALL (it cannot be
    parsed), MALFORMED_RESPONSE, UNEXPECTED_TOOL_CALL, TOO_MANY_TOOL_CALLS, OTHER, NO_IMAGE,
    MISSING_THOUGHT_SIGNATURE and so on, also any that Google will add. Such a response without
    content (reasoning does not count) is a failed attempt, not an empty success.
    https://ai.google.dev/api/generate-content#FinishReason
    """
    return None if word in STOPS else _parsing.failed(word, message)


def stop_reason(word: str, called: bool) -> StopReason:
    """The neutral stop reason; Google sends STOP also when the model calls functions."""
    stop = STOPS.get(word, StopReason.OTHER)
    return StopReason.TOOLS if called and stop is StopReason.END else stop


def finish_reason(stop: StopReason, word: str) -> str:
    """Google's finish reason; `word` is the vendor's own, which is used if it is one of
    Google's.
    """
    return word if word in STOPS else WORDS[stop]


# ── responses ────────────────────────────────────────────────────────────────


def encode_response(response: Response, new_id: str, model: str) -> bytes:
    """Write a whole response."""
    parts: list[dict[str, Any]] = []
    carried = CarriedThoughts()
    for block in response.blocks:
        if isinstance(block, Text | Reasoning | Refusal):
            carried.add(block, block.text, {} if isinstance(block, Refusal) else block.extra)
        parts += write(block, carried.take() if isinstance(block, ToolCall) else "")
    text = ""
    cited: list[tuple[Citation, int, int]] = []
    for block in response.blocks:
        if isinstance(block, Text):
            ends = len(text) + len(block.text)
            cited += [(citation, len(text), ends) for citation in block.citations]
            text += block.text
    candidate: dict[str, Any] = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": finish_reason(response.stop, response.word),
        "index": 0,
        **encode_citations(cited, text),
    }
    if response.refusal:
        candidate["finishMessage"] = response.refusal
    return _json.dumps(
        {
            "candidates": [candidate],
            "usageMetadata": encode_usage(response.usage or Usage()),
            "modelVersion": response.model or model,
            "responseId": response.id or new_id,
            **({"conversation": response.conversation} if response.conversation else {}),
        }
    )


def write(block: Block, carried: str = "") -> Iterator[dict[str, Any]]:
    """The parts for a block. `carried` is the signature of a call that Google did not sign."""
    extra = {} if isinstance(block, Refusal | Opaque) else block.extra
    signature = extra.get(NAME, {}).get("signature") or carried
    if isinstance(block, Reasoning) and not signature and (carrier := encode_carrier(block, extra)):
        if block.text:  # in two parts, as a stream has it
            yield {"text": block.text, "thought": True}
        yield {"text": "", "thought": True, "thoughtSignature": carrier}
        return
    signed = {"thoughtSignature": signature} if signature else {}
    match block:
        case Text(text) | Refusal(text):
            yield {"text": text, **signed}
        case Reasoning(text) if text:
            yield {"text": text, "thought": True, **signed}
        case Reasoning() if signed:
            yield {"text": "", "thought": True, **signed}
        case ToolCall(call_id, name, arguments):
            args = _parsing.arguments(arguments, [])
            yield {"functionCall": {"id": call_id, "name": name, "args": args}, **signed}
        case Media(data=data) if data:
            yield {"inlineData": {"mimeType": block.media_type, "data": data}, **signed}
        case Media(url=url) if url:
            yield {**encode_link(block), **signed}
        case Opaque("gemini", payload):
            yield dict(payload)


def encode_link(media: Media) -> dict[str, Any]:
    """A part for a file that has only an address; the media type is required."""
    uri = media.url or media.file
    kind = media.media_type if "*" not in media.media_type else ""
    kind = kind or mimetypes.guess_type(urlsplit(uri).path)[0] or DEFAULT_TYPE[media.kind]
    return {"fileData": {"fileUri": uri, "mimeType": kind}}


def decode_media(blob: Mapping[str, Any], extra: Extra) -> Media:
    """Read an image or audio that the model generated; `extra` contains its signature."""
    media_type = _parsing.get_text(blob, "mimeType")
    head = media_type.partition("/")[0]
    kind: Any = head if head in ("image", "audio", "video") else "document"
    data, uri = _parsing.get_text(blob, "data"), _parsing.get_text(blob, "fileUri")
    return Media(kind=kind, media_type=media_type, data=data, url=uri, extra=extra)


def decode_citations(candidate: Mapping[str, Any], text: str) -> tuple[Citation, ...]:
    """Read the citations in `groundingMetadata` and `citationMetadata`.

    Positions count bytes of UTF-8. https://ai.google.dev/api/generate-content#GroundingMetadata
    """
    grounding = candidate.get("groundingMetadata") or {}
    recited = candidate.get("citationMetadata") or {}
    if not grounding and not recited:
        return ()
    sources = [_source(chunk) for chunk in _parsing.objects(grounding.get("groundingChunks"))]
    encoded = text.encode("utf-8", "replace")

    def position(at: Any) -> int:
        return len(encoded[: at if isinstance(at, int) else 0].decode("utf-8", "ignore"))

    def cite(source: Mapping[str, Any], segment: Mapping[str, Any]) -> Citation:
        return Citation(
            url=_parsing.get_text(source, "uri"),
            title=_parsing.get_text(source, "title"),
            quote=_parsing.get_text(segment, "text"),
            start=position(segment.get("startIndex")),
            end=position(segment.get("endIndex")),
        )

    cited = [
        cite(sources[number], support.get("segment") or {})
        for support in _parsing.objects(grounding.get("groundingSupports"))
        for number in support.get("groundingChunkIndices") or ()
        if 0 <= number < len(sources)
    ]
    if not cited:
        cited = [
            Citation(url=_parsing.get_text(s, "uri"), title=_parsing.get_text(s, "title"))
            for s in sources
        ]
    for name in ("citationSources", "citations"):  # on the Gemini API, on Vertex AI
        cited += [cite(found, found) for found in _parsing.objects(recited.get(name))]
    return tuple(found for found in cited if found.url or found.title)


def _source(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """A page, a document or a place."""
    kinds = (chunk.get(kind) for kind in ("web", "retrievedContext", "maps"))
    return next((source for source in kinds if isinstance(source, dict)), {})


def encode_citations(cited: Sequence[tuple[Citation, int, int]], text: str) -> dict[str, Any]:
    """Write `groundingMetadata` for citations in a whole answer's `text`; empty if there are none.

    Each comes with the place of its text block, from and to, in characters: it covers all of that
    if it has no positions of its own.
    """
    if not cited:
        return {}
    chunks: list[dict[str, Any]] = []
    supports: list[dict[str, Any]] = []
    for citation, begins, ends in cited:
        chunk = {"web": {"uri": citation.url, "title": citation.title}}
        if chunk not in chunks:
            chunks.append(chunk)
        start = begins if citation.start is None else citation.start
        end = ends if citation.end is None else citation.end
        first, last = (len(text[:at].encode("utf-8", "replace")) for at in (start, end))
        segment: dict[str, Any] = {"startIndex": first, "endIndex": last}
        said = citation.quote or text[start:end]
        supports.append(
            {
                "segment": {**segment, "text": said},
                "groundingChunkIndices": [chunks.index(chunk)],
            }
        )
    return {"groundingMetadata": {"groundingChunks": chunks, "groundingSupports": supports}}


# ── usage ────────────────────────────────────────────────────────────────────

_COUNTS = ("promptTokenCount", "candidatesTokenCount")


def has_counts(usage: Any) -> bool:
    """Whether `usageMetadata` has counts: Vertex AI first sends only the type of traffic."""
    return isinstance(usage, dict) and not usage.keys().isdisjoint(_COUNTS)


def decode_usage(usage: Any) -> Usage | None:
    """Read `usageMetadata`. Google counts reasoning outside the candidates: it is added."""
    if not has_counts(usage):
        return None
    thought = _parsing.read_count(usage, "thoughtsTokenCount")
    prompt = _parsing.read_count(usage, "promptTokenCount")
    into = _by_modality(usage.get("promptTokensDetails"))
    out = _by_modality(usage.get("candidatesTokensDetails"))
    return Usage(
        input=prompt + _parsing.read_count(usage, "toolUsePromptTokenCount"),
        output=_parsing.read_count(usage, "candidatesTokenCount") + thought,
        cache_read=_parsing.read_count(usage, "cachedContentTokenCount"),
        reasoning=thought,
        audio_input=into.get("AUDIO", 0),
        audio_output=out.get("AUDIO", 0),
        image_input=into.get("IMAGE", 0),
        image_output=out.get("IMAGE", 0),
    )


def _by_modality(details: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in _parsing.objects(details):
        modality = _parsing.get_text(part, "modality")
        counts[modality] = counts.get(modality, 0) + _parsing.read_count(part, "tokenCount")
    return counts


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Write `usageMetadata`."""
    said = max(usage.output - usage.reasoning, 0)
    out: dict[str, Any] = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": said,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.audio_input:
        out["promptTokensDetails"] = _by_kind(usage.input, usage.audio_input)
    if usage.audio_output:
        out["candidatesTokensDetails"] = _by_kind(said, usage.audio_output)
    if usage.reasoning:
        out["thoughtsTokenCount"] = usage.reasoning
    if usage.cache_read:
        out["cachedContentTokenCount"] = usage.cache_read
    return out


def _by_kind(total: int, audio: int) -> list[dict[str, Any]]:
    counts = {"AUDIO": audio, "TEXT": total - audio}
    return [{"modality": kind, "tokenCount": n} for kind, n in counts.items() if n > 0]
