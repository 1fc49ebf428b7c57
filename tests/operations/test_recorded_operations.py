"""Recorded calls of operations besides chat, played back: the client's request through the gateway,
and the provider's response to the client.

The recordings are in the shared folder, see `tests/support/recordings.py`. A request in the
client's own API must reach the provider as it was recorded, and its response the client. A provider
with an API of its own gets the request that OpenAI's clients send for the same thing.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from asgi_aiproxy import AIShim
from asgi_aiproxy.providers import (
    ANTHROPIC,
    CEREBRAS,
    COHERE,
    GEMINI,
    JINA,
    MISTRAL,
    OPENAI,
    VOYAGE,
    XAI,
    azure,
    bedrock,
)
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.recordings import RECORDINGS, needs_recordings
from tests.support.scripted_upstream import Step, Upstream

pytestmark = [needs_recordings, pytest.mark.anyio]

PROVIDERS = {
    "anthropic": ANTHROPIC,
    "azure": azure("https://r.openai.azure.com", api_version="2023-07-01-preview"),
    "bedrock": bedrock("us-east-1"),
    "cerebras": CEREBRAS,
    "cohere": COHERE,
    "gemini": GEMINI,
    "jina": JINA,
    "mistral": MISTRAL,
    "openai": OPENAI,
    "voyage": VOYAGE,
    "xai": XAI,
}
KINDS = {"embeddings", "images", "transcription", "binary", "rerank", "moderation", "count_tokens"}
# Vendors whose embeddings are converted for OpenAI's clients: their members for texts.
CONVERTED = {"cohere.embed": "texts", "mistral.embeddings": "input", "voyage.embeddings": "input",
             "jina.embeddings": "input"}  # fmt: skip
# Of these, members that have no effect, or that the gateway decides.
OWN = {"embedding_types", "encoding_format", "output_dtype"}
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--b\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n'
)


def recordings() -> list[Any]:
    if not RECORDINGS.is_dir():
        return []
    found = [json.loads(path.read_bytes()) for path in sorted(RECORDINGS.glob("*.*.json"))]
    return [r for r in found if r["expect"].get("kind") in KINDS or _is_error(r)]


def _is_error(recording: Any) -> bool:
    named = ("embed", "rerank", "images", "audio", "moderation", "count")
    return recording["expect"].get("kind") == "error" and any(
        word in recording["api"] for word in named
    )


ALL = recordings()
by_recording = pytest.mark.parametrize("recording", ALL, ids=lambda r: str(r["id"]))


def request_of(recording: Any) -> tuple[str, Any, dict[str, str]]:
    """The path, body and headers that a client of the gateway sends."""
    request = recording["request"] or {}
    path = request.get("path", "/v1/audio/transcriptions").partition("?")[0]
    body = request.get("body")
    if "audio" in recording["api"] and not isinstance(body, dict):
        return (
            "/v1" + path.partition("/v1")[2],
            FORM,
            {"content-type": "multipart/form-data; boundary=b"},
        )
    if recording["api"] in CONVERTED:
        given = {k: v for k, v in body.items() if v is not None and k not in OWN}
        texts = given.pop(CONVERTED[recording["api"]])
        size = given.pop("output_dimension", None)
        sizes = {"dimensions": size} if size is not None else {}
        return "/v1/embeddings", {**given, "input": texts, **sizes}, {}
    if recording["provider"] == "azure":
        return "/v1" + path[path.index("/embeddings") :], body, {}
    return path, body, {"anthropic-version": "2023-06-01"} if "anthropic" in path else {}


async def play(recording: Any) -> tuple[asgi.Answer, Upstream, UsageRecord]:
    response = recording["response"]
    body = response.get("body")
    data = base64.b64decode(response["base64"]) if body is None else json.dumps(body).encode()
    kind = response["headers"].get("content-type", "application/json")
    upstream = Upstream(Step([data], response["status"], {"content-type": kind}))
    records: list[UsageRecord] = []

    async def keep(record: UsageRecord) -> None:
        records.append(record)

    app = AIShim(
        PROVIDERS[recording["provider"]].using("k"),
        transport=upstream.transport,
        record=keep,
        attempts=1,
    )
    path, sent, headers = request_of(recording)
    async with app:
        answer = await asgi.request(app, "POST", path, sent, headers=headers)
    return answer, upstream, records[0]


def test_there_are_recordings_of_every_kind() -> None:
    kinds = {recording["expect"]["kind"] for recording in ALL}
    assert kinds >= KINDS - {"binary"}
    assert {recording["provider"] for recording in ALL} <= PROVIDERS.keys()


@by_recording
async def test_a_recorded_call_is_played_back(recording: Any) -> None:
    answer, upstream, record = await play(recording)
    expect, response = recording["expect"], recording["response"]
    assert answer.status == response["status"], answer.body
    sent, recorded = upstream.bodies[0], (recording["request"] or {}).get("body")
    assert len(upstream.requests) == 1
    if recording["api"] in CONVERTED:
        wanted = {k: v for k, v in recorded.items() if v is not None and k not in OWN}
        assert {k: v for k, v in sent.items() if k not in OWN} == wanted
    elif isinstance(recorded, dict):
        assert sent == recorded
        assert upstream.requests[0].url.path == recording["request"]["path"].partition("?")[0] or (
            recording["provider"] == "azure"
        )
    if recording["api"] not in CONVERTED and expect["kind"] != "error":
        assert answer.json == response["body"]
    check = CHECKS[expect["kind"]]
    check(answer, expect, record)


def _embeddings(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    found = answer.json.get("data") or answer.json.get("embeddings")
    assert len(found) == expect["count"]
    for item, vector in zip(found, expect["vectors"], strict=True):
        values = item.get("embedding", item.get("values"))
        if isinstance(values, str):
            data = base64.b64decode(values)
            values = list(struct.unpack(f"<{len(data) // 4}f", data))
        assert len(values) == vector["dims"]
        assert values[:3] == pytest.approx(vector["first"], abs=1e-5)
    if expect["usage"]:
        assert record.usage is not None
        assert record.usage.input == (expect["usage"].get("input") or expect["usage"]["total"])


def _images(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    assert len(answer.json["data"]) == expect["count"]
    assert record.usage is not None
    assert record.usage.images == expect["count"]
    if expect["usage"]:
        assert record.usage.output == expect["usage"]["output"]


def _transcription(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    assert answer.json["text"] == expect["text"]
    assert record.usage is not None


def _rerank(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    assert [each["index"] for each in answer.json["results"]] == expect["order"]
    scores = [each["relevance_score"] for each in answer.json["results"]]
    assert scores == pytest.approx(expect["scores"], abs=1e-5)
    assert record.usage is not None
    assert record.usage.search_units == 1


def _moderation(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    flagged = expect.get("flagged")
    found = [each["flagged"] for each in answer.json["results"]]
    assert flagged is None or found == (flagged if isinstance(flagged, list) else [flagged])


def _count(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    assert (answer.json.get("input_tokens") or answer.json.get("totalTokens")) == expect["input"]
    assert record.cost in (None, 0)


def _error(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    assert answer.json["error"]["message"] == expect["error"]["message"]


def _binary(answer: asgi.Answer, expect: Any, record: UsageRecord) -> None:
    assert answer.body


CHECKS = {
    "embeddings": _embeddings,
    "images": _images,
    "transcription": _transcription,
    "rerank": _rerank,
    "moderation": _moderation,
    "count_tokens": _count,
    "error": _error,
    "binary": _binary,
}
