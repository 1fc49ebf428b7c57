"""OpenAI's operations other than chat: responses in the correct format, with fixed content."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects.openai_chat.responses import finish_reason
from asgi_aiproxy.dialects.openai_chat.usage import encode_usage
from asgi_aiproxy.messages import StopReason
from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.received import ReceivedRequest
from asgi_aiproxy.testing.reply import Reply

REQUIRED = {
    "chat": ("model", "messages"),
    "completions": ("model", "prompt"),
    "embeddings": ("model", "input"),
    "images.generations": ("prompt",),
    "audio.speech": ("model", "input", "voice"),
    "moderations": ("input",),
    "rerank": ("model", "query", "documents"),
}
DIMENSIONS = 8
CREATED = 1_700_000_000
# A transparent image of one pixel.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
    "gg=="
)
# One silent frame of MPEG audio.
SILENCE = b"\xff\xfb\x10\xc4" + b"\0" * 100

_SOUNDS = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def perform(received: ReceivedRequest, answer: Answer, *, stream: bool) -> Reply:
    """Return the response to an operation other than chat."""
    if received.operation == "completions" and stream:
        events = tuple(_completion_events(received, answer))
        return Reply(media_type="text/event-stream; charset=utf-8", events=events)
    if received.operation == "audio.speech":
        form = str(received.members.get("response_format", "mp3"))
        return Reply.whole(SILENCE, _SOUNDS.get(form, "audio/mpeg"))
    return Reply.whole(_json.dumps(_WHOLE[received.operation](received, answer)))


def _completion(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    return {
        **_completion_head(received),
        "choices": [_choice(answer.words, finish_reason(answer.stop or StopReason.END, False))],
        "usage": encode_usage(answer.usage),
    }


def _completion_events(received: ReceivedRequest, answer: Answer) -> Iterator[bytes]:
    head = _completion_head(received)
    end = finish_reason(answer.stop or StopReason.END, False)
    choices = [*(_choice(piece, None) for piece in answer.cut(answer.words)), _choice("", end)]
    for choice in choices:
        yield _event({**head, "choices": [choice]})
    options = received.members.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        yield _event({**head, "choices": [], "usage": encode_usage(answer.usage)})
    yield b"data: [DONE]\n\n"


def _completion_head(received: ReceivedRequest) -> dict[str, Any]:
    return {
        "id": f"cmpl-mock{received.number}",
        "object": "text_completion",
        "created": CREATED,
        "model": received.model,
    }


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + _json.dumps(data) + b"\n\n"


def _embeddings(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    given = received.members["input"]
    # A list of numbers is one text, as tokens.
    texts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    size = received.members.get("dimensions")
    encoded = received.members.get("encoding_format") == "base64"
    rows = []
    for at, text in enumerate(texts):
        vector = embed(str(text), size if isinstance(size, int) else DIMENSIONS)
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        value = packed if encoded else vector
        rows.append({"object": "embedding", "index": at, "embedding": value})
    count = answer.usage.input
    return {
        "object": "list",
        "data": rows,
        "model": received.model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def gemini_embeddings(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    """Google's response to a request for an embedding, or for a batch of them."""
    requests = received.members.get("requests")
    batch = isinstance(requests, list)
    rows = []
    for each in requests if isinstance(requests, list) else [received.members]:
        parts = each["content"]["parts"]
        size = each.get("outputDimensionality", DIMENSIONS)
        rows.append({"values": embed("".join(part["text"] for part in parts), size)})
    counts = {"promptTokenCount": answer.usage.input}
    found: dict[str, Any] = {"embeddings": rows} if batch else {"embedding": rows[0]}
    return {**found, "usageMetadata": counts}


def embed(text: str, size: int) -> list[float]:
    """Return a vector for a text: always the same one for the same text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return [(digest[at % len(digest)] - 127.5) / 127.5 for at in range(size)]


def _images(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    count = received.members.get("n")
    if received.members.get("response_format") == "url":
        image = {"url": "https://mock.invalid/image.png"}
    else:
        image = {"b64_json": PIXEL}
    number = count if isinstance(count, int) else 1
    return {"created": CREATED, "data": [image] * number}


def _transcription(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    return {"text": answer.words}


def _moderation(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    given = received.members["input"]
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
    }
    number = len(given) if isinstance(given, list) else 1
    return {
        "id": f"modr-mock{received.number}",
        "model": received.model,
        "results": [result] * number,
    }


def rank(received: ReceivedRequest) -> list[dict[str, Any]]:
    """The documents of a request, those with more words of the query first."""
    members = received.members
    query = set(str(members["query"]).lower().split())
    found = []
    for index, document in enumerate(members["documents"]):
        words = str(document).lower().split()
        score = sum(word in query for word in words) / max(len(words), 1)
        found.append({"index": index, "relevance_score": round(score, 6)})
    found.sort(key=lambda one: -one["relevance_score"])
    top = members.get("top_n")
    return found[: top if isinstance(top, int) else None]


def _rerank(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    count = answer.usage.input
    usage = {"prompt_tokens": count, "total_tokens": count}
    results = rank(received)
    return {"id": f"rerank-mock{received.number}", "model": received.model, "usage": usage,
            "results": results}  # fmt: skip


def cohere_operation(received: ReceivedRequest, answer: Answer) -> dict[str, Any]:
    """Cohere's response to a request for embeddings, or to rank documents."""
    head = {"id": f"mock{received.number}"}
    if received.operation == "rerank":
        units = {"search_units": -(-len(received.members["documents"]) // 100)}
        meta = {"api_version": {"version": "2"}, "billed_units": units}
        return {**head, "results": rank(received), "meta": meta}
    size = received.members.get("output_dimension")
    size = size if isinstance(size, int) else DIMENSIONS
    vectors = [embed(str(text), size) for text in received.members["texts"]]
    billed = {"billed_units": {"input_tokens": answer.usage.input}}
    return {**head, "embeddings": {"float": vectors}, "texts": received.members["texts"],
            "meta": billed}  # fmt: skip


_WHOLE: dict[str, Callable[[ReceivedRequest, Answer], dict[str, Any]]] = {
    "completions": _completion,
    "embeddings": _embeddings,
    "images.generations": _images,
    "images.edits": _images,
    "images.variations": _images,
    "audio.transcriptions": _transcription,
    "audio.translations": _transcription,
    "moderations": _moderation,
    "rerank": _rerank,
}
