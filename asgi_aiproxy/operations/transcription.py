"""Transcription: sound becomes text. Clients use OpenAI's API: POST /v1/audio/transcriptions, and
/v1/audio/translations for text in English.

- OpenAI, Groq: https://platform.openai.com/docs/api-reference/audio/createTranscription
- Google: https://ai.google.dev/gemini-api/docs/audio
- ElevenLabs: https://elevenlabs.io/docs/api-reference/speech-to-text/convert
- Deepgram: https://developers.deepgram.com/reference/speech-to-text-api/listen

An upload that passes through is not kept. One that is converted is spooled to a file; it is sent to
Deepgram and ElevenLabs from there, in pieces. Google takes it as part of a JSON body, up to 14 MiB.

Vendors answer at once, with the whole text. A client that requested a stream gets it as one event.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlencode

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import GEMINI_CONTENT, _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.dialects.gemini.request_encoder import method_path
from asgi_aiproxy.dialects.openai_chat.native_stream import openai_usage
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.messages import Text, Usage
from asgi_aiproxy.operations.base import ClientOperation, OperationAPI, read_object
from asgi_aiproxy.operations.forms import Form, FormFile, file_content, form_content, number

MiB = 1024 * 1024
TRANSLATIONS = "audio.translations"
_FORMATS: Mapping[str, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
_TIMED = frozenset({"verbose_json", "srt", "vtt"})
_KNOWN = frozenset(
    {"model", "language", "prompt", "response_format", "temperature", "stream", "provider"}
    | {"timestamp_granularities[]", "timestamp_granularities"}
)
# Sound has about that many bytes per second, at 64 kbit/s.
_BYTES_PER_SECOND = 8_000
_WORDS_PER_SEGMENT = 12


class TranscriptionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the text of a `file`, by a `model`.

    `language` is that of the sound (ISO 639-1), `prompt` what helps to understand it. `format` is
    that of the response. With `english`, the text is translated. `stream`: the client requested
    events. `words`: the client requested the times of words. `rest` are other members.
    """

    model: str
    file: FormFile
    language: str = ""
    prompt: str = ""
    format: str = "json"
    temperature: float | None = None
    english: bool = False
    stream: bool = False
    words: bool = False
    rest: Mapping[str, Any] = {}


class Span(msgspec.Struct, frozen=True):
    """A part of the text, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


class TranscriptionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The text by a `model`, and what is known of its times. `duration` is in seconds."""

    model: str
    text: str
    language: str = ""
    duration: float = 0.0
    segments: tuple[Span, ...] = ()
    words: tuple[Span, ...] = ()
    usage: Usage | None = None


TranscriptionAPI = OperationAPI[TranscriptionRequest, TranscriptionResponse]


class OpenAITranscriptionClient(ClientOperation[TranscriptionRequest, TranscriptionResponse]):
    """OpenAI's API for transcription, as clients use it."""

    kind: ClassVar[str] = "transcription"
    streams: ClassVar[bool] = True

    def decode_request(self, operation: Operation, body: bytes | Form) -> TranscriptionRequest:
        """Read a form."""
        if not isinstance(body, Form):
            raise invalid("This path requires a multipart/form-data body.", "file")
        files = body.uploads("file")
        if len(files) != 1:
            message = "Exactly one file is required, in the field 'file'."
            raise invalid(message, "file", "missing_required_parameter")
        form = body.get("response_format") or "json"
        if form not in _FORMATS:
            names = ", ".join(_FORMATS)
            message = f"'response_format' must be one of {names} for the provider of this model."
            raise invalid(message, "response_format", "invalid_value")
        temperature = number(body, "temperature")
        if temperature is not None and not isinstance(temperature, int | float):
            raise invalid("'temperature' must be a number.", "temperature", "invalid_type")
        return TranscriptionRequest(
            model=body.get("model") or "",
            file=files[0],
            language=body.get("language") or "",
            prompt=body.get("prompt") or "",
            format=form,
            temperature=temperature,
            english=operation.name == TRANSLATIONS,
            stream=(body.get("stream") or "").lower() in ("true", "1"),
            words="word" in body.all("timestamp_granularities"),
            rest={name: value for name, value in body.fields if name not in _KNOWN},
        )

    def media_type(self, request: TranscriptionRequest) -> str:
        """The type of the requested format."""
        return "text/event-stream" if request.stream else _FORMATS[request.format]

    def encode_response(
        self, response: TranscriptionResponse, request: TranscriptionRequest
    ) -> bytes:
        """Write the text in the requested format."""
        if request.stream:
            done = {"type": "transcript.text.done", "text": response.text}
            delta = {"type": "transcript.text.delta", "delta": response.text}
            return b"".join(b"data: " + _json.dumps(event) + b"\n\n" for event in (delta, done))
        if request.format == "text":
            return response.text.encode() + b"\n"
        if request.format in ("srt", "vtt"):
            return _subtitles(response, request.format == "vtt").encode()
        answer: dict[str, Any] = {"text": response.text}
        if request.format == "verbose_json":
            answer = {
                "task": "translate" if request.english else "transcribe",
                "language": response.language,
                "duration": response.duration,
                **answer,
                "segments": [_segment(at, each) for at, each in enumerate(response.segments)],
            }
            if request.words:
                answer["words"] = [
                    {"word": each.text, "start": each.start, "end": each.end}
                    for each in response.words
                ]
        if response.duration:
            answer["usage"] = {"type": "duration", "seconds": math.ceil(response.duration)}
        return _json.dumps(answer)

    def decode_usage(self, body: bytes) -> tuple[str, Usage | None]:
        """Read the usage of a response that passes through: tokens, or seconds."""
        found = _parsing.parse_object(body) or {}
        usage = found.get("usage")
        seconds = usage.get("seconds") if isinstance(usage, dict) else None
        seconds = found.get("duration") if seconds is None else seconds
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0:
            return "", Usage(audio_seconds=math.ceil(seconds))
        model, tokens = openai_usage(body)
        return model, tokens

    def units(self, request: TranscriptionRequest) -> Usage:
        """The seconds, by the size of the file."""
        return self.upload_units(request.file.length)

    def upload_units(self, length: int) -> Usage:
        """The seconds, by the size of the form; those of the largest file if it is unknown."""
        return Usage(audio_seconds=-(-(length or 25 * MiB) // _BYTES_PER_SECOND))


class GeminiTranscription(TranscriptionAPI):
    """Google's models that understand sound, through generateContent. They know no times."""

    kind: ClassVar[str] = "transcription"

    def encode_request(self, request: TranscriptionRequest) -> ProviderRequest:
        """Write a request."""
        if request.format in _TIMED:
            raise _unsupported(
                "response_format", "the provider of this model knows no times: use 'json' or 'text'"
            )
        if request.words:
            raise _unsupported(
                "timestamp_granularities", "the provider of this model knows no times"
            )
        task = "Transcribe this recording word for word"
        if request.english:
            task = "Translate what is said in this recording into English"
        elif request.language:
            task += f" (its language: {request.language})"
        task += ". Write the text only."
        if request.prompt:
            task += f"\nWhat helps to understand it: {request.prompt}"
        data = request.file.read_at_most(14 * MiB, "the provider of this model")
        sound = {"mimeType": _sound_type(request.file), "data": base64.b64encode(data).decode()}
        body: dict[str, Any] = {
            "contents": [{"role": "user", "parts": [{"text": task}, {"inlineData": sound}]}]
        }
        if request.temperature is not None:
            body["generationConfig"] = {"temperature": request.temperature}
        path = method_path(request.model, "generateContent")
        return ProviderRequest(path, body, ignored=tuple(request.rest))

    def decode_response(
        self, bodies: Sequence[bytes], request: TranscriptionRequest
    ) -> TranscriptionResponse:
        """Read the text."""
        response = GEMINI_CONTENT.decode_response(bodies[-1])
        text = "".join(block.text for block in response.blocks if isinstance(block, Text))
        return TranscriptionResponse(
            model=response.model or request.model, text=text.strip(), usage=response.usage
        )


class DeepgramTranscription(TranscriptionAPI):
    """Deepgram: the file is the body of the request."""

    kind: ClassVar[str] = "transcription"
    _OWN: ClassVar = frozenset(
        {"diarize", "punctuate", "smart_format", "keyterm", "numerals", "paragraphs"}
    )

    def encode_request(self, request: TranscriptionRequest) -> ProviderRequest:
        """Write a request."""
        _no_english(request)
        query = {"model": request.model, "smart_format": "true", "utterances": "true"}
        query |= {"language": request.language} if request.language else {"detect_language": "true"}
        query |= {name: value for name, value in request.rest.items() if name in self._OWN}
        ignored = [name for name in request.rest if name not in self._OWN]
        ignored += ["prompt"] if request.prompt else []
        ignored += ["temperature"] if request.temperature is not None else []
        return ProviderRequest(
            "/v1/listen",
            {},
            query=urlencode(query),
            content=file_content(request.file),
            ignored=tuple(ignored),
        )

    def decode_response(
        self, bodies: Sequence[bytes], request: TranscriptionRequest
    ) -> TranscriptionResponse:
        """Read the first channel."""
        found = read_object(bodies[-1])
        results = found.get("results")
        channel = next(iter(_parsing.objects((results or {}).get("channels"))), None)
        best = next(iter(_parsing.objects((channel or {}).get("alternatives"))), None)
        if channel is None or best is None:
            raise _parsing.unparsable_response_error(200, bodies[-1])
        metadata = found.get("metadata")
        duration = _seconds(metadata if isinstance(metadata, dict) else {}, "duration")
        return TranscriptionResponse(
            model=request.model,
            text=_parsing.get_text(best, "transcript"),
            language=_parsing.get_text(channel, "detected_language") or request.language,
            duration=duration,
            segments=_spans((results or {}).get("utterances"), "transcript"),
            words=_spans(best.get("words"), "punctuated_word", "word"),
            usage=Usage(audio_seconds=math.ceil(duration)) if duration else None,
        )


class ElevenLabsTranscription(TranscriptionAPI):
    """ElevenLabs: a form, with other names."""

    kind: ClassVar[str] = "transcription"
    _OWN: ClassVar = frozenset({"diarize", "num_speakers", "tag_audio_events", "seed"})

    def encode_request(self, request: TranscriptionRequest) -> ProviderRequest:
        """Write a request."""
        _no_english(request)
        fields = [("model_id", request.model), ("timestamps_granularity", "word")]
        fields += [("language_code", request.language)] if request.language else []
        if request.temperature is not None:
            fields.append(("temperature", f"{request.temperature:g}"))
        fields += [(name, value) for name, value in request.rest.items() if name in self._OWN]
        ignored = [name for name in request.rest if name not in self._OWN]
        ignored += ["prompt"] if request.prompt else []
        return ProviderRequest(
            "/v1/speech-to-text",
            {},
            content=form_content(fields, {"file": request.file}),
            ignored=tuple(ignored),
        )

    def decode_response(
        self, bodies: Sequence[bytes], request: TranscriptionRequest
    ) -> TranscriptionResponse:
        """Read the text, and the times of its words."""
        found = read_object(bodies[-1])
        if not isinstance(found.get("text"), str):
            raise _parsing.unparsable_response_error(200, bodies[-1])
        said = [w for w in _parsing.objects(found.get("words")) if w.get("type", "word") == "word"]
        words = _spans(said, "text")
        duration = _seconds(found, "audio_duration_secs") or (words[-1].end if words else 0.0)
        return TranscriptionResponse(
            model=request.model,
            text=found["text"],
            language=_parsing.get_text(found, "language_code") or request.language,
            duration=duration,
            segments=_grouped(words),
            words=words,
            usage=Usage(audio_seconds=math.ceil(duration)) if duration else None,
        )


GEMINI_TRANSCRIPTION = GeminiTranscription()
DEEPGRAM_TRANSCRIPTION = DeepgramTranscription()
ELEVENLABS_TRANSCRIPTION = ElevenLabsTranscription()


def _no_english(request: TranscriptionRequest) -> None:
    if request.english:
        raise APIError(
            ErrorKind.NOT_FOUND,
            f"The provider of model {request.model!r} does not translate: it transcribes only.",
            code="unsupported_operation",
        )


def _sound_type(file: FormFile) -> str:
    """The content type of a file; by its name if the client did not say."""
    if file.media_type.startswith(("audio/", "video/")):
        return file.media_type
    ending = file.filename.rpartition(".")[2].lower()
    named = {"mp3": "mpeg", "mpga": "mpeg", "m4a": "mp4", "oga": "ogg"}.get(ending, ending)
    return f"audio/{named}" if named.isalnum() else "audio/mpeg"


def _spans(found: Any, *names: str) -> tuple[Span, ...]:
    """Parts of a text with their times; the text is the first of `names` that is there."""
    return tuple(
        Span(
            next((text for name in names if (text := _parsing.get_text(each, name))), ""),
            _seconds(each, "start"),
            _seconds(each, "end"),
        )
        for each in _parsing.objects(found)
    )


def _grouped(words: Sequence[Span]) -> tuple[Span, ...]:
    """Segments of words: up to the end of a sentence, or _WORDS_PER_SEGMENT."""
    segments: list[Span] = []
    held: list[Span] = []
    for at, word in enumerate(words):
        held.append(word)
        ends = word.text.endswith((".", "?", "!", "。", "？", "！"))  # noqa: RUF001
        if ends or len(held) == _WORDS_PER_SEGMENT or at == len(words) - 1:
            text = " ".join(each.text for each in held)
            segments.append(Span(text, held[0].start, held[-1].end))
            held = []
    return tuple(segments)


def _seconds(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _segment(at: int, span: Span) -> dict[str, Any]:
    """A segment as whisper-1 has it; what only that model knows is 0."""
    return {
        "id": at,
        "seek": 0,
        "start": span.start,
        "end": span.end,
        "text": span.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 0.0,
        "no_speech_prob": 0.0,
    }


def _subtitles(response: TranscriptionResponse, vtt: bool) -> str:
    """The segments as WebVTT, or as SubRip."""
    spans = response.segments or (Span(response.text, 0.0, response.duration),)
    point = "." if vtt else ","
    blocks = []
    for count, each in enumerate(spans, 1):
        times = f"{_time(each.start, point)} --> {_time(each.end, point)}"
        blocks.append(f"{times}\n{each.text}\n" if vtt else f"{count}\n{times}\n{each.text}\n")
    return ("WEBVTT\n\n" if vtt else "") + "\n".join(blocks) + "\n"


def _time(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    minutes, rest = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _unsupported(name: str, why: str) -> APIError:
    return invalid(f"'{name}': {why}.", name, "unsupported_parameter")
