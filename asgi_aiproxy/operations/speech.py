"""Speech: a text is read aloud. Clients use OpenAI's API: POST /v1/audio/speech.

- OpenAI, Groq: https://platform.openai.com/docs/api-reference/audio/createSpeech
- Google: https://ai.google.dev/gemini-api/docs/speech-generation
- ElevenLabs: https://elevenlabs.io/docs/api-reference/text-to-speech/stream
- Deepgram: https://developers.deepgram.com/reference/text-to-speech-api

Sound passes through as it arrives, except Google's, which is samples in JSON: they become a WAV
file, or stay samples (`pcm`). Speakers have the vendor's own names; Google also gets one for each
of OpenAI's names.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import msgspec

from asgi_aiproxy.dialects import GEMINI_CONTENT, _parsing
from asgi_aiproxy.dialects.base import Operation, ProviderRequest
from asgi_aiproxy.dialects.gemini.request_encoder import method_path
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.inspection import check_model
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.operations.base import ClientOperation, OperationAPI, read_json, read_object
from asgi_aiproxy.operations.forms import Form

FORMATS: Mapping[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_KNOWN = frozenset(
    {"model", "input", "voice", "response_format", "speed", "instructions", "stream_format"}
    | {"provider"}
)


class SpeechRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A `text` to be read by a `speaker` of a `model`.

    `format` is one of FORMATS, or None: any. `speed` is 1 for the usual one. `instructions` say how
    to read. `rest` are members without a neutral meaning.
    """

    model: str
    text: str
    speaker: str
    format: str | None = None
    speed: float = 1.0
    instructions: str = ""
    rest: Mapping[str, Any] = {}


class SpeechResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The sound of a `model`: a file, or samples, as the request says."""

    model: str
    audio: bytes
    usage: Usage | None = None


SpeechAPI = OperationAPI[SpeechRequest, SpeechResponse]


class OpenAISpeechClient(ClientOperation[SpeechRequest, SpeechResponse]):
    """OpenAI's API for speech, as clients use it."""

    kind: ClassVar[str] = "speech"

    def decode_request(self, operation: Operation, body: bytes | Form) -> SpeechRequest:
        """Read a request."""
        fields = read_json(body)
        for name in ("input", "voice"):
            if fields.get(name) is None:
                raise _parsing.missing_field_error(name)
        text: Any = fields["input"]
        speaker: Any = fields["voice"]
        speaker = speaker.get("id") if isinstance(speaker, dict) else speaker
        for name, value in (("input", text), ("voice", speaker)):
            if not isinstance(value, str) or not value:
                message = f"'{name}' must be a string that is not empty."
                raise invalid(message, name, "invalid_type")
        form = fields.get("response_format")
        if form is not None and form not in FORMATS:
            names = ", ".join(FORMATS)
            message = f"'response_format' must be one of {names}."
            raise invalid(message, "response_format", "invalid_value")
        if fields.get("stream_format") not in (None, "audio"):
            raise _unsupported("stream_format", "the provider of this model sends sound only")
        speed = fields.get("speed")
        speed = 1.0 if speed is None else speed
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
            raise invalid("'speed' must be a number from 0.25 to 4.", "speed", "invalid_value")
        return SpeechRequest(
            model=_parsing.get_text(fields, "model"),
            text=text,
            speaker=speaker,
            format=form,
            speed=speed,
            instructions=_parsing.get_text(fields, "instructions"),
            rest={k: v for k, v in fields.items() if k not in _KNOWN and v is not None},
        )

    def encode_response(self, response: SpeechResponse, request: SpeechRequest) -> bytes:
        """The sound."""
        return response.audio

    def media_type(self, request: SpeechRequest) -> str:
        """The type of what is converted: a WAV file, or samples."""
        return FORMATS["pcm" if request.format == "pcm" else "wav"]

    def units(self, request: SpeechRequest) -> Usage:
        """The characters."""
        return Usage(characters=len(request.text))


# Google's names for OpenAI's: https://ai.google.dev/gemini-api/docs/speech-generation
_GOOGLE_SPEAKERS = {
    "alloy": "Kore",
    "ash": "Charon",
    "ballad": "Enceladus",
    "cedar": "Algieba",
    "coral": "Aoede",
    "echo": "Puck",
    "fable": "Fenrir",
    "marin": "Despina",
    "nova": "Leda",
    "onyx": "Orus",
    "sage": "Sulafat",
    "shimmer": "Zephyr",
    "verse": "Achird",
}
_RATE = re.compile(r"rate=(\d+)")


class GeminiSpeech(OperationAPI[SpeechRequest, SpeechResponse]):
    """Google's models that answer with sound, through generateContent."""

    kind: ClassVar[str] = "speech"

    def encode_request(self, request: SpeechRequest) -> ProviderRequest:
        """Write a request. How to read is part of the text there."""
        if request.format not in (None, "wav", "pcm"):
            raise _unsupported(
                "response_format", "the provider of this model makes 'wav' and 'pcm' only"
            )
        text = request.text
        if request.instructions:
            text = f"{request.instructions}:\n{text}"
        speaker = _GOOGLE_SPEAKERS.get(request.speaker, request.speaker)
        body = {
            "contents": [{"role": "user", "parts": [{"text": text}]}],
            "generationConfig": {
                "responseModalities": ["AUDIO"],
                "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": speaker}}},
            },
        }
        ignored = (*request.rest, *(("speed",) if request.speed != 1 else ()))
        path = method_path(request.model, "generateContent")
        return ProviderRequest(path, body, ignored=ignored)

    def decode_response(self, bodies: Sequence[bytes], request: SpeechRequest) -> SpeechResponse:
        """Read the samples; write them into a file unless samples were requested."""
        body = bodies[-1]
        found = read_object(body)
        sound, rate = b"", 24_000
        for candidate in _parsing.objects(found.get("candidates")):
            content = candidate.get("content")
            parts = content.get("parts") if isinstance(content, dict) else None
            for part in _parsing.objects(parts):
                data = part.get("inlineData")
                if not isinstance(data, dict):
                    continue
                try:
                    sound += base64.b64decode(_parsing.get_text(data, "data"), validate=True)
                except binascii.Error:
                    raise _parsing.unparsable_response_error(200, body) from None
                if named := _RATE.search(_parsing.get_text(data, "mimeType")):
                    rate = int(named[1])
        if not sound:
            GEMINI_CONTENT.decode_response(body)  # raises the error in it, if there is one
            raise _parsing.truncated_response_error("it has no sound")
        usage = GEMINI_CONTENT.decode_response(body).usage
        if usage is not None:
            count = len(request.text)
            usage = msgspec.structs.replace(usage, characters=count, audio_output=usage.output)
        audio = sound if request.format == "pcm" else wav(sound, rate)
        return SpeechResponse(model=request.model, audio=audio, usage=usage)


def wav(samples: bytes, rate: int) -> bytes:
    """A WAV file with samples of 16 bits of one channel, `rate` per second."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16),
        *(b"data", len(samples)),
    )
    return head + samples


class _PassingSpeech(OperationAPI[SpeechRequest, SpeechResponse]):
    """An API whose sound passes through."""

    kind: ClassVar[str] = "speech"
    passes: ClassVar[bool] = True

    def decode_response(self, bodies: Sequence[bytes], request: SpeechRequest) -> SpeechResponse:
        """Not used: sound is not decoded."""
        raise NotImplementedError(f"{type(self).__name__} passes sound through")


class ElevenLabsSpeech(_PassingSpeech):
    """ElevenLabs: speakers are named by their ids."""

    _FORMATS: ClassVar = {
        "mp3": "mp3_44100_128",
        "opus": "opus_48000_64",
        "pcm": "pcm_24000",
        "wav": "wav_24000",
    }
    _OWN: ClassVar = frozenset(
        {"language_code", "voice_settings", "seed", "previous_text", "next_text"}
        | {"apply_text_normalization"}
    )

    def encode_request(self, request: SpeechRequest) -> ProviderRequest:
        """Write a request."""
        form = self._FORMATS.get(request.format or "mp3")
        if form is None:
            raise _unsupported(
                "response_format",
                "the provider of this model makes 'mp3', 'opus', 'pcm' and 'wav' only",
            )
        body: dict[str, Any] = {"text": request.text, "model_id": request.model}
        body |= {k: v for k, v in request.rest.items() if k in self._OWN}
        if request.speed != 1:
            if not 0.7 <= request.speed <= 1.2:
                raise _unsupported("speed", "the provider of this model reads at 0.7 to 1.2")
            given = body.get("voice_settings")
            settings = given if isinstance(given, dict) else {}
            body["voice_settings"] = {**settings, "speed": request.speed}
        path = f"/v1/text-to-speech/{quote(check_model(request.speaker), safe='')}"
        path += "/stream" if form != "wav_24000" else ""  # a file begins with its length
        ignored = [name for name in request.rest if name not in self._OWN]
        ignored += ["instructions"] if request.instructions else []
        query = urlencode({"output_format": form})
        return ProviderRequest(path, body, query=query, ignored=tuple(ignored))


class DeepgramSpeech(_PassingSpeech):
    """Deepgram: models are `aura-2-thalia-en`, or `aura-2` with the speaker `thalia`."""

    _FORMATS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "mp3": {"encoding": "mp3"},
        "opus": {"encoding": "opus", "container": "ogg"},
        "aac": {"encoding": "aac"},
        "flac": {"encoding": "flac"},
        "wav": {"encoding": "linear16", "container": "wav", "sample_rate": "24000"},
        "pcm": {"encoding": "linear16", "container": "none", "sample_rate": "24000"},
    }

    def encode_request(self, request: SpeechRequest) -> ProviderRequest:
        """Write a request."""
        model = request.model
        ignored = [*request.rest]
        if re.search(r"-[a-z]{2}$", model) is None:
            model = f"{model}-{request.speaker}-en"
        elif request.speaker not in model:
            ignored.append("voice")
        ignored += ["instructions"] if request.instructions else []
        ignored += ["speed"] if request.speed != 1 else []
        query = urlencode({"model": check_model(model), **self._FORMATS[request.format or "mp3"]})
        body = {"text": request.text}
        return ProviderRequest("/v1/speak", body, query=query, ignored=tuple(ignored))


GEMINI_SPEECH = GeminiSpeech()
ELEVENLABS_SPEECH = ElevenLabsSpeech()
DEEPGRAM_SPEECH = DeepgramSpeech()


def _unsupported(name: str, why: str) -> APIError:
    return invalid(f"'{name}': {why}.", name, "unsupported_parameter")
