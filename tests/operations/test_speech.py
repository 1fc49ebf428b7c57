"""Speech: OpenAI's API for every vendor that reads aloud."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import openai
import pytest

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers import DEEPGRAM, ELEVENLABS, GEMINI, GROQ, OPENAI, Provider
from asgi_aiproxy.testing import serve
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, refuses, streams
from tests.support.strict_vendor import NUMBER, Endpoint, StrictVendor

pytestmark = pytest.mark.anyio

SOUND = b"\x01\x02" * 3000
LONG = "Hello there."


def as_sound(body: Any, request: Any) -> Any:
    return "audio/mpeg", SOUND


def google(body: Any, request: Any) -> Any:
    data = {"mimeType": "audio/L16;codec=pcm;rate=16000", "data": base64.b64encode(SOUND).decode()}
    parts = [{"inlineData": data}]
    counts = {"promptTokenCount": 4, "candidatesTokenCount": 50, "totalTokenCount": 54}
    content = {"role": "model", "parts": parts}
    return {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": counts}


SPEAKER = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": str}}}
ROWS: dict[str, tuple[Provider, str, str, Endpoint]] = {
    "openai": (OPENAI, "gpt-4o-mini-tts", "alloy",
               Endpoint("/v1/audio/speech",
                        {"model": str, "input": str, "voice": str, "response_format": str,
                         "speed": NUMBER, "instructions": str, "stream_format": str}, as_sound)),
    "groq": (GROQ, "playai-tts", "Fritz-PlayAI",
             Endpoint("/openai/v1/audio/speech",
                      {"model": str, "input": str, "voice": str, "response_format": str},
                      as_sound)),
    "elevenlabs": (ELEVENLABS, "eleven_flash_v2_5", "JBFqnCBsd6RMkjVDRZzb",
                   Endpoint("/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb/stream",
                            {"text": str, "model_id": str, "voice_settings": {"speed": NUMBER},
                             "language_code": str, "seed": int}, as_sound, ("text", "model_id"),
                            query=("output_format",))),
    "deepgram": (DEEPGRAM, "aura-2", "thalia",
                 Endpoint("/v1/speak", {"text": str}, as_sound, ("text",),
                          query=("model", "encoding", "container", "sample_rate"))),
}  # fmt: skip
GOOGLE = Endpoint(
    "/v1beta/models/gemini-2.5-flash-preview-tts:generateContent",
    {
        "contents": [{"role": str, "parts": [{"text": str}]}],
        "generationConfig": {"responseModalities": [{"AUDIO"}], "speechConfig": SPEAKER},
    },
    google,
    ("contents", "generationConfig"),
)


def app_of(row: Provider, endpoint: Endpoint, records: list[UsageRecord]) -> Any:
    async def keep(record: UsageRecord) -> None:
        records.append(record)

    vendor = StrictVendor([endpoint])
    return OpenAIShim(row.using("key"), transport=vendor.transport, record=keep), vendor


async def speak(app: Any, **members: Any) -> Any:
    body = {"model": "m", "input": LONG, "voice": "alloy", **members}
    return await asgi.request(app, "POST", "/v1/audio/speech", body)


@pytest.mark.parametrize("name", ROWS)
async def test_sound_passes_as_the_vendor_makes_it(name: str) -> None:
    row, model, speaker, endpoint = ROWS[name]
    records: list[UsageRecord] = []
    app, vendor = app_of(row, endpoint, records)
    async with app:
        answer = await speak(app, model=model, voice=speaker, response_format="mp3")
    assert answer.status == 200, answer.body
    assert answer.body == SOUND
    assert answer.header("content-type") == "audio/mpeg"
    assert answer.header("aiproxy-ignored") is None
    assert records[0].usage == Usage(characters=len(LONG))
    (request,) = vendor.requests
    if name == "elevenlabs":
        assert request.headers["xi-api-key"] == "key"
        assert request.url.params["output_format"] == "mp3_44100_128"
    if name == "deepgram":
        assert request.headers["authorization"] == "Token key"
        assert dict(request.url.params) == {"model": "aura-2-thalia-en", "encoding": "mp3"}


@pytest.mark.parametrize("form", [None, "wav"])
async def test_googles_samples_become_a_wav_file(form: Any) -> None:
    records: list[UsageRecord] = []
    app, vendor = app_of(GEMINI, GOOGLE, records)
    async with (
        serve(app) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="t", max_retries=0) as client,
    ):
        spoken = await client.audio.speech.create(
            model="gemini-2.5-flash-preview-tts",
            input=LONG,
            voice="nova",
            instructions="Cheerfully",
            **({"response_format": form} if form else {}),
        )
        file = spoken.read()
    with wave.open(io.BytesIO(file)) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (16_000, 1, 2)
        assert read.readframes(10**6) == SOUND
    assert spoken.response.headers["content-type"] == "audio/wav"
    config = vendor.bodies[0]["generationConfig"]["speechConfig"]["voiceConfig"]
    assert config["prebuiltVoiceConfig"]["voiceName"] == "Leda"
    text = vendor.bodies[0]["contents"][0]["parts"][0]["text"]
    assert text == f"Cheerfully:\n{LONG}"
    usage = records[0].usage
    assert usage is not None
    assert (usage.input, usage.output, usage.audio_output) == (4, 50, 50)
    assert usage.characters == len(LONG)


async def test_googles_samples_stay_samples_for_pcm() -> None:
    app, _ = app_of(GEMINI, GOOGLE, [])
    answer = await speak(app, model="gemini-2.5-flash-preview-tts", response_format="pcm")
    assert (answer.body, answer.header("content-type")) == (SOUND, "audio/pcm")


@pytest.mark.parametrize(
    ("row", "members", "param"),
    [
        (GEMINI, {"response_format": "mp3"}, "response_format"),
        (GEMINI, {"stream_format": "sse"}, "stream_format"),
        (ELEVENLABS, {"response_format": "flac"}, "response_format"),
        (ELEVENLABS, {"speed": 3}, "speed"),
        (ELEVENLABS, {"speed": "fast"}, "speed"),
        (ELEVENLABS, {"response_format": "ogg"}, "response_format"),
        (DEEPGRAM, {"input": ""}, "input"),
        (DEEPGRAM, {"voice": None}, "voice"),
        (DEEPGRAM, {"voice": 5}, "voice"),
    ],
)
async def test_what_a_vendor_cannot_speak_is_refused_by_name(
    row: Provider, members: dict[str, Any], param: str
) -> None:
    app, vendor = app_of(row, GOOGLE, [])
    answer = await speak(app, **members)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert vendor.requests == []


async def test_members_that_a_vendor_lacks_are_named() -> None:
    _, _, _, endpoint = ROWS["deepgram"]
    app, vendor = app_of(DEEPGRAM, endpoint, [])
    options = {"model": "aura-2-thalia-en", "instructions": "Sadly", "speed": 1.5, "odd": 1}
    answer = await speak(app, voice="alloy", response_format="wav", **options)
    ignored = (answer.header("aiproxy-ignored") or "").split(", ")
    assert ignored == ["odd", "voice", "instructions", "speed"]
    assert vendor.requests[0].url.params["model"] == "aura-2-thalia-en"
    assert vendor.requests[0].url.params["encoding"] == "linear16"
    _, _, speaker, endpoint = ROWS["elevenlabs"]
    app, vendor = app_of(ELEVENLABS, endpoint, [])
    answer = await speak(app, model="m", voice=speaker, speed=1.1, seed=3)
    assert answer.status == 200
    assert vendor.bodies == [
        {"text": LONG, "model_id": "m", "seed": 3, "voice_settings": {"speed": 1.1}}
    ]


async def test_sound_is_passed_on_while_it_arrives() -> None:
    steps = streams(b"one", b"two", b"three")
    steps.headers["content-type"] = "audio/mpeg"
    app = OpenAIShim(ELEVENLABS.using("k"), transport=Upstream(steps).transport)
    body = b'{"model":"m","input":"Hi","voice":"v"}'
    async with asgi.opened(app, "POST", "/v1/audio/speech") as exchange:
        exchange.send_body(body)
        start = await exchange.message()
        assert dict(start["headers"])[b"content-type"] == b"audio/mpeg"
        pieces = [(await exchange.message())["body"] for _ in range(3)]
        await exchange.ended()
    assert b"".join(pieces) == b"onetwothree"
    assert len([piece for piece in pieces if piece]) > 1


@pytest.mark.parametrize(
    ("row", "status", "body", "message"),
    [
        (ELEVENLABS, 404, b'{"detail":{"status":"voice_not_found","message":"No such speaker."}}',
         "No such speaker."),
        (ELEVENLABS, 422, b'{"detail":[{"loc":["body","text"],"msg":"field required"}]}',
         "field required"),
        (DEEPGRAM, 400, b'{"err_code":"Bad Request","err_msg":"No such model.","request_id":"1"}',
         "No such model."),
    ],
)  # fmt: skip
async def test_a_vendors_error_is_openais(
    row: Provider, status: int, body: bytes, message: str
) -> None:
    app = OpenAIShim(row.using("k"), transport=Upstream(refuses(status, body)).transport)
    answer = await speak(app)
    assert 400 <= answer.status < 500
    assert answer.json["error"]["message"] == message


async def test_an_account_without_credit_costs_the_next_key() -> None:
    body = b'{"detail":{"status":"quota_exceeded","message":"You have 0 credits left."}}'
    sound = streams(SOUND)
    sound.headers["content-type"] = "audio/mpeg"
    upstream = Upstream(refuses(401, body), sound)
    app = OpenAIShim(ELEVENLABS.using(["a", "b"]), transport=upstream.transport)
    assert (await speak(app)).body == SOUND
    assert {request.headers["xi-api-key"] for request in upstream.requests} == {"a", "b"}


async def test_chat_with_a_vendor_of_sound_is_refused() -> None:
    app = OpenAIShim(DEEPGRAM.using("k"), transport=Upstream(refuses(500)).transport)
    answer = await asgi.chat(app)
    assert answer.status == 404
    assert "does not offer chat" in answer.json["error"]["message"]
