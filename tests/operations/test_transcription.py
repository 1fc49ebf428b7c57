"""Transcription: OpenAI's API for every vendor that understands sound."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import openai
import pytest

from asgi_aiproxy import OpenAIShim, ProviderRouter
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.multipart import FormParser
from asgi_aiproxy.providers import DEEPGRAM, ELEVENLABS, GEMINI, GROQ, MISTRAL, OPENAI, Provider
from asgi_aiproxy.testing import serve
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses
from tests.support.strict_vendor import NUMBER, Endpoint, StrictVendor

pytestmark = pytest.mark.anyio

SOUND = bytes(range(256)) * 8192  # 2 MiB: more than is kept in memory
TEXT = "One two. Three."
WORDS = [("One", 0.0, 0.5), ("two.", 0.5, 1.0), ("Three.", 1.25, 2.5)]


def form_of(request: Any) -> tuple[dict[str, str], dict[str, bytes]]:
    """The fields and files of a form, by the gateway's strict grammar."""
    data = request.content
    parser = FormParser.from_content_type(request.headers["content-type"])
    parser.feed(data)
    parser.close()
    fields, files = {}, {}
    for part in parser.parts:
        name, filename, _ = part.describe()
        content = data[part.start : part.end]
        if filename is None:
            fields[name] = content.decode()
        else:
            files[name] = content
    return fields, files


def deepgram(body: bytes, request: Any) -> Any:
    assert body == SOUND
    assert request.headers["content-type"] == "audio/wav"
    words = [
        {"word": w.lower().strip("."), "punctuated_word": w, "start": s, "end": e}
        for w, s, e in WORDS
    ]
    spans = [
        {"transcript": "One two.", "start": 0.0, "end": 1.0},
        {"transcript": "Three.", "start": 1.25, "end": 2.5},
    ]
    channel = {"alternatives": [{"transcript": TEXT, "words": words}], "detected_language": "en"}
    return {"metadata": {"duration": 2.5}, "results": {"channels": [channel], "utterances": spans}}


FIELDS = {"model_id", "timestamps_granularity", "language_code", "temperature", "diarize",
          "num_speakers", "tag_audio_events", "seed"}  # fmt: skip


def elevenlabs(body: bytes, request: Any) -> Any:
    fields, files = form_of(request)
    assert fields.keys() <= FIELDS
    assert fields["model_id"] == "scribe_v2"
    assert files == {"file": SOUND}
    words: list[Any] = []
    for word, start, end in WORDS:
        words.append({"text": word, "start": start, "end": end, "type": "word"})
        words.append({"text": " ", "start": end, "end": end, "type": "spacing"})
    return {"language_code": "en", "language_probability": 1, "text": TEXT, "words": words}


def google(body: Any, request: Any) -> Any:
    sound = body["contents"][0]["parts"][1]["inlineData"]
    assert base64.b64decode(sound["data"]) == SOUND
    content = {"role": "model", "parts": [{"text": TEXT + "\n"}]}
    counts = {"promptTokenCount": 90, "candidatesTokenCount": 6, "totalTokenCount": 96}
    return {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": counts}


SOUND_PART = {"text": str, "inlineData": {"mimeType": {"audio/wav"}, "data": str}}
DEEPGRAM_QUERY = ("model", "smart_format", "utterances", "language", "detect_language", "diarize")
ROWS: dict[str, tuple[Provider, str, Endpoint, Usage]] = {
    "deepgram": (DEEPGRAM, "nova-3",
                 Endpoint("/v1/listen", {}, deepgram, query=DEEPGRAM_QUERY, raw=True),
                 Usage(audio_seconds=3)),
    "elevenlabs": (ELEVENLABS, "scribe_v2",
                   Endpoint("/v1/speech-to-text", {}, elevenlabs, raw=True),
                   Usage(audio_seconds=3)),
    "google": (GEMINI, "gemini-2.5-flash",
               Endpoint("/v1beta/models/gemini-2.5-flash:generateContent",
                        {"contents": [{"role": str, "parts": [SOUND_PART]}],
                         "generationConfig": {"temperature": NUMBER}}, google),
               Usage(input=90, output=6)),
}  # fmt: skip
TIMED = ("deepgram", "elevenlabs")


def app_of(name: str, records: list[UsageRecord] | None = None) -> tuple[OpenAIShim, StrictVendor]:
    async def keep(record: UsageRecord) -> None:
        (records if records is not None else []).append(record)

    provider, _, endpoint, _ = ROWS[name]
    vendor = StrictVendor([endpoint])
    return OpenAIShim(provider.using("k"), transport=vendor.transport, record=keep), vendor


def form(fields: Mapping[str, str], *, file: bytes = SOUND, last: bool = False) -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n"
    )
    sound = head + file + b"\r\n"
    parts = [*parts, sound] if last else [sound, *parts]
    return b"".join(parts) + b"--b--\r\n"


async def transcribe(
    app: Any, path: str = "/v1/audio/transcriptions", *, last: bool = False, **fields: str
) -> Any:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    body = form({"model": "m", **fields}, last=last)
    return await asgi.request(app, "POST", path, body, headers=headers)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", ROWS)
async def test_an_upload_becomes_text(name: str, last: bool) -> None:
    _, model, _, usage = ROWS[name]
    records: list[UsageRecord] = []
    app, _ = app_of(name, records)
    async with app:
        answer = await transcribe(app, model=model, language="en", last=last)
    assert answer.status == 200, answer.body
    assert answer.json["text"] == TEXT
    assert answer.header("content-type") == "application/json"
    assert records[0].usage == usage
    assert records[0].operation == "audio.transcriptions"


@pytest.mark.parametrize("name", TIMED)
async def test_times_are_in_every_format_that_has_them(name: str) -> None:
    _, model, _, _ = ROWS[name]
    app, _ = app_of(name)
    options = {"model": model, "timestamp_granularities[]": "word"}
    full = (await transcribe(app, response_format="verbose_json", **options)).json
    assert (full["language"], full["duration"], full["text"]) == ("en", 2.5, TEXT)
    times = [(each["text"], each["start"], each["end"]) for each in full["segments"]]
    assert times == [("One two.", 0.0, 1.0), ("Three.", 1.25, 2.5)]
    assert [(w["word"], w["start"], w["end"]) for w in full["words"]] == WORDS
    srt = await transcribe(app, model=model, response_format="srt")
    assert srt.body.decode() == (
        "1\n00:00:00,000 --> 00:00:01,000\nOne two.\n\n2\n00:00:01,250 --> 00:00:02,500\nThree.\n\n"
    )
    vtt = await transcribe(app, model=model, response_format="vtt")
    assert vtt.body.decode().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nOne two.\n")
    assert vtt.header("content-type") == "text/vtt; charset=utf-8"
    plain = await transcribe(app, model=model, response_format="text")
    assert plain.body == TEXT.encode() + b"\n"


@pytest.mark.parametrize("name", ROWS)
async def test_openais_sdk_reads_the_text_and_its_stream(name: str) -> None:
    _, model, _, _ = ROWS[name]
    app, _ = app_of(name)
    async with (
        serve(app) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="t", max_retries=0) as client,
    ):
        upload = ("a.wav", SOUND, "audio/wav")
        found = await client.audio.transcriptions.create(model=model, file=upload)
        assert found.text == TEXT
        stream = await client.audio.transcriptions.create(model=model, file=upload, stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].text == TEXT  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("google", {"response_format": "srt"}, "response_format"),
        ("google", {"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ("google", {"temperature": "warm"}, "temperature"),
        ("deepgram", {"response_format": "diarized_json"}, "response_format"),
    ],
)
async def test_what_a_vendor_cannot_do_is_refused_by_name(
    name: str, fields: dict[str, str], param: str
) -> None:
    app, vendor = app_of(name)
    answer = await transcribe(app, **fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert vendor.requests == []


async def test_members_that_a_vendor_lacks_are_named() -> None:
    app, vendor = app_of("deepgram")
    answer = await transcribe(
        app, model="nova-3", prompt="Names", temperature="0", diarize="true", odd="1"
    )
    assert answer.header("aiproxy-ignored") == "odd, prompt, temperature"
    assert vendor.requests[0].url.params["diarize"] == "true"
    assert vendor.requests[0].url.params["detect_language"] == "true"


async def test_translations_into_english_are_googles_or_refused() -> None:
    app, vendor = app_of("google")
    answer = await transcribe(app, "/v1/audio/translations", model="gemini-2.5-flash")
    assert answer.json["text"] == TEXT
    assert "English" in vendor.bodies[0]["contents"][0]["parts"][0]["text"]
    app, _ = app_of("deepgram")
    answer = await transcribe(app, "/v1/audio/translations", model="nova-3")
    assert answer.status == 404
    assert "does not translate" in answer.json["error"]["message"]


async def test_a_file_is_required_and_googles_must_be_small() -> None:
    app, _ = app_of("google")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    path = "/v1/audio/transcriptions"
    answer = await asgi.request(app, "POST", path, body, headers=headers)
    assert (answer.status, answer.json["error"]["param"]) == (400, "file")
    large = form({"model": "gemini-2.5-flash"}, file=bytes(14 * 1024 * 1024 + 1))
    answer = await asgi.request(app, "POST", path, large, headers=headers)
    assert (answer.status, answer.json["error"]["param"]) == (413, "file")


@pytest.mark.parametrize("row", [OPENAI, GROQ, MISTRAL], ids=lambda row: row.name)
async def test_a_form_passes_to_vendors_with_openais_api_and_its_seconds_are_counted(
    row: Provider,
) -> None:
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    said = json.dumps({"text": TEXT, "usage": {"type": "duration", "seconds": 7}}).encode()
    upstream = Upstream(answers(said))
    app = OpenAIShim(row.using("k"), transport=upstream.transport, record=keep)
    async with app:
        answer = await transcribe(app, model="whisper-1")
    assert answer.body == said
    fields, files = form_of(upstream.requests[0])
    assert (fields, files) == ({"model": "whisper-1"}, {"file": SOUND})
    assert records[0].usage == Usage(audio_seconds=7)


async def test_an_upload_that_is_kept_goes_to_the_next_key_and_the_next_vendor() -> None:
    # The first target would get the form as it is: it is kept because the second one converts it.
    said = json.dumps(deepgram(SOUND, FakeRequest())).encode()
    upstream = Upstream(refuses(503), refuses(401), answers(said))
    targets = [(GROQ.using("a"), "whisper-large-v3"), (DEEPGRAM.using(["b", "c"]), "nova-3")]
    app = OpenAIShim(ProviderRouter({"listen": targets}), transport=upstream.transport)
    answer = await transcribe(app, model="listen")
    assert answer.status == 200, answer.body
    assert answer.json["text"] == TEXT
    paths = [request.url.path for request in upstream.requests]
    assert paths == ["/openai/v1/audio/transcriptions", "/v1/listen", "/v1/listen"]
    assert form_of(upstream.requests[0])[1] == {"file": SOUND}
    assert [request.content for request in upstream.requests[1:]] == [SOUND, SOUND]


class FakeRequest:
    def __init__(self) -> None:
        self.headers = {"content-type": "audio/wav"}
