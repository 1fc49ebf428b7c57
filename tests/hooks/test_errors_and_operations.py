"""Guards see the errors of providers, and the responses of operations other than chat."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from asgi_aiproxy import AIShim, ConfigurationError, PassthroughProxy, ProviderRouter
from asgi_aiproxy.hooks import Call, JudgeGuard, TextGuard, find_words
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, OPENAI_RESPONSES
from tests.hooks.test_every_surface import BASE, CALLS
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, chat_stream, refuses, sse

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

BAD = "project nemo"
SAID = f"Your prompt about {BAD} is refused."
BLOCK = TextGuard(find_words([BAD]))
MASK = TextGuard(find_words([BAD]), action="mask")
HOLD = TextGuard(find_words([BAD]), mode="hold")

ERRORS = {
    "chat": {"error": {"message": SAID, "type": "t", "param": "p", "code": BAD}},
    "responses": {"error": {"message": SAID, "type": "t", "param": None, "code": "c"}},
    "messages": {"type": "error", "error": {"type": "invalid_request_error", "message": SAID}},
    "gemini": {
        "error": {
            "code": 400,
            "message": SAID,
            "status": "INVALID_ARGUMENT",
            "details": [{"reason": "R", "domain": SAID}],
        }
    },
}
VENDORS = {
    "chat": (OPENAI, "/v1"),
    "responses": (OPENAI_RESPONSES, "/v1"),
    "messages": (ANTHROPIC, ""),
    "gemini": (GEMINI, ""),
}


def app(vendor: str, where: str, guard: TextGuard, upstream: Upstream) -> Any:
    made, base = VENDORS[vendor]
    provider = made.using("sk-1", base_url=BASE + base)  # (refused keys cool down)
    options: dict[str, Any] = {"transport": upstream.transport, "hooks": [guard]}
    if where == "proxy":
        return PassthroughProxy(provider, **options)
    return AIShim(ProviderRouter({"*": provider}), attempts=1, **options)


PLACES = [
    (face, vendor, where)
    for face in ERRORS
    for vendor in ERRORS
    for where in ("shim", "proxy")
    if where == "shim" or face == vendor
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("face", "vendor", "where"), PLACES)
async def test_the_error_of_a_provider_is_guarded_in_every_client_api(
    face: str, vendor: str, where: str, stream: bool
) -> None:
    for status, guard in itertools.product([400, 401, 403, 404, 429, 500], [BLOCK, MASK]):
        upstream = Upstream(refuses(status, json.dumps(ERRORS[vendor]).encode()))
        gateway = app(vendor, where, guard, upstream)
        async with gateway:
            path, body = CALLS[face](stream)
            headers = {"content-type": "application/json"}
            answer = await asgi.request(gateway, "POST", path, body, headers=headers)
        assert b"nemo" not in answer.body
        assert answer.status >= 400
        assert answer.json["error"]
        if guard is MASK and (status in (400, 404) or (status == 500 and where == "shim")):
            assert b"Your prompt about [word] is refused." in answer.body


async def test_an_error_without_a_finding_is_passed_on_as_it_was_received() -> None:
    body = json.dumps({"error": {"message": "no such tool", "type": "t", "x": [1.0]}}).encode()
    for where in ("shim", "proxy"):
        gateway = app("chat", where, BLOCK, Upstream(refuses(400, body)))
        path, request = CALLS["chat"](False)
        answer = await asgi.request(gateway, "POST", path, request)
        assert (answer.status, answer.body) == (400, body)


@pytest.mark.parametrize("guard", [BLOCK, HOLD, MASK], ids=["window", "hold", "mask"])
@pytest.mark.parametrize("where", ["shim", "proxy"])
async def test_an_error_event_in_a_stream_is_guarded(where: str, guard: TextGuard) -> None:
    pieces = [*chat_stream("well " * 100, usage=False, done=False)[:2], *sse(ERRORS["chat"])]
    upstream = Upstream(Step(pieces, headers={"content-type": "text/event-stream"}))
    gateway = app("chat", where, guard, upstream)
    async with gateway:
        answer = await asgi.request(gateway, "POST", *CALLS["chat"](True))
    assert b"nemo" not in answer.body
    if guard is not HOLD:
        assert answer.status == 200
        assert answer.body.count(b"well") > 10
    (error,) = [e for e in answer.events if "error" in e] if answer.status == 200 else [answer.json]
    assert ("[word]" in error["error"]["message"]) == (guard is MASK)


async def test_an_error_on_the_responses_websocket_of_a_shim_is_guarded() -> None:
    upstream = Upstream(refuses(400, json.dumps(ERRORS["responses"]).encode()))
    gateway = app("responses", "shim", BLOCK, upstream)
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    sent.put_nowait({"type": "websocket.connect"})
    create = json.dumps({"type": "response.create", "model": "m", "input": "Hi"})
    sent.put_nowait({"type": "websocket.receive", "text": create})
    scope = {"type": "websocket", "path": "/v1/responses", "headers": [], "query_string": b""}
    task = asyncio.ensure_future(gateway(scope, sent.get, received.put))
    async with asyncio.timeout(30):
        assert (await received.get())["type"] == "websocket.accept"
        text = (await received.get())["text"]
        assert "nemo" not in text
        assert json.loads(text)["error"]["message"].startswith("The provider's error message is")
        sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task


# operations other than chat

FORM = (
    b"--x\r\ncontent-disposition: form-data; name=model\r\n\r\nm\r\n"
    b'--x\r\ncontent-disposition: form-data; name=file; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
)
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
OPERATIONS: dict[str, tuple[str, Any, str, str]] = {
    "embeddings": (
        "/v1/embeddings",
        {"model": "m", "input": "Hi"},
        JSON,
        json.dumps({"object": "list", "data": [], "model": SAID}),
    ),
    "images": (
        "/v1/images/generations",
        {"model": "m", "prompt": "Hi"},
        JSON,
        json.dumps({"created": 1, "data": [{"url": "https://a", "revised_prompt": SAID}]}),
    ),
    "transcription": ("/v1/audio/transcriptions", FORM, JSON, json.dumps({"text": SAID})),
    "transcription as text": ("/v1/audio/transcriptions", FORM, TEXT, SAID),
    "streamed transcription": (
        "/v1/audio/transcriptions",
        FORM,
        "text/event-stream",
        b"".join(
            sse(
                {"type": "transcript.text.delta", "delta": "project"},
                {"type": "transcript.text.delta", "delta": " nemo"},
            )
        ).decode(),
    ),
    "moderations": (
        "/v1/moderations",
        {"model": "m", "input": "Hi"},
        JSON,
        json.dumps({"id": "1", "model": "m", "results": [{"categories": {SAID: True}}]}),
    ),
}


async def operate(name: str, guard: TextGuard, body: str, kind: str) -> asgi.Answer:
    path, request, _, _ = OPERATIONS[name]
    upstream = Upstream(Step([body.encode()], headers={"content-type": kind}))
    form = isinstance(request, bytes)
    headers = {"content-type": "multipart/form-data; boundary=x" if form else JSON}
    gateway = app("chat", "shim", guard, upstream)
    async with gateway:
        return await asgi.request(gateway, "POST", path, request, headers=headers)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_the_responses_of_other_operations_are_guarded(name: str) -> None:
    *_, kind, body = OPERATIONS[name]
    for guard in (BLOCK, HOLD):
        answer = await operate(name, guard, body, kind)
        assert (answer.status, answer.json["error"]["code"]) == (403, "content_blocked")
        assert b"nemo" not in answer.body
    answer = await operate(name, MASK, body, kind)
    if name == "moderations":  # (names of members are not masked)
        assert answer.status == 403
    else:
        assert b"nemo" not in answer.body
        assert b"[word]" in answer.body
    fine = body.replace("nemo", "X")
    answer = await operate(name, BLOCK, fine, kind)
    assert (answer.status, answer.body) == (200, fine.encode())


EDIT = (
    b"--x\r\ncontent-disposition: form-data; name=model\r\n\r\nm\r\n"
    b'--x\r\ncontent-disposition: form-data; name=image; filename="a.png"\r\n\r\nPNG\r\n'
    b"--x\r\ncontent-disposition: form-data; name=prompt\r\n\r\n%b\r\n--x--\r\n"
)


@pytest.mark.parametrize("action", ["block", "mask"])
async def test_the_fields_of_an_upload_are_guarded_and_its_bytes_pass(action: Any) -> None:
    guard = TextGuard(find_words([BAD]), action=action)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for prompt, status in ((SAID.encode(), 403), (b"A cat", 200)):
        upstream = Upstream(answers(b'{"created": 1, "data": []}'))
        gateway = app("chat", "shim", guard, upstream)
        async with gateway:
            answer = await asgi.request(
                gateway, "POST", "/v1/images/edits", EDIT % prompt, headers=headers
            )
        assert answer.status == status, answer.body
        assert len(upstream.requests) == (status == 200)
        if status == 200:
            assert b"PNG" in await upstream.requests[0].aread()
            assert b"A cat" in await upstream.requests[0].aread()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "m", "input": ["Hi", SAID]}),
        ("/v1/images/generations", {"model": "m", "prompt": SAID}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": SAID}]}),
        ("/v1/images/edits", EDIT % SAID.encode()),
    ],
)
async def test_a_judge_sees_the_texts_of_every_operation(path: str, body: Any) -> None:
    judged: list[str] = []

    async def judge(text: str, call: Call) -> str | None:
        judged.append(text)
        return "No." if BAD in text else None

    upstream = Upstream(answers())
    gateway = app("chat", "shim", JudgeGuard(judge), upstream)  # type: ignore[arg-type]
    form = isinstance(body, bytes)
    headers = {"content-type": "multipart/form-data; boundary=x" if form else JSON}
    answer = await asgi.request(gateway, "POST", path, body, headers=headers)
    assert (answer.status, upstream.requests) == (403, [])
    assert judged[0].endswith(SAID)


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (None, "find is a function that returns TextMatch"),
        (lambda text: BAD in text, "find fails for an empty text"),
        (lambda text, more: text, "find fails for an empty text"),
        (lambda text: ["x"], "must return TextMatch objects"),
    ],
)
def test_what_is_not_a_finder_is_refused_when_the_guard_is_made(find: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TextGuard(find)

    async def judge(text: str) -> list[Any]:
        return []

    with pytest.raises(ConfigurationError, match="not an async function"):
        TextGuard(judge)  # type: ignore[arg-type]


async def test_audio_and_images_pass_a_guard_and_unreadable_text_does_not() -> None:
    request = {"model": "m", "input": "Hi", "voice": "alloy"}
    for kind, status in (("audio/mpeg", 200), ("text/plain; charset=utf-16", 403)):
        upstream = Upstream(Step([b"\x00\x01\xff"], headers={"content-type": kind}))
        gateway = app("chat", "shim", BLOCK, upstream)
        async with gateway:
            answer = await asgi.request(gateway, "POST", "/v1/audio/speech", request)
        assert answer.status == status, answer.body
        assert (answer.body == b"\x00\x01\xff") == (status == 200)


async def test_a_large_response_with_vectors_passes_a_guard() -> None:
    vectors = [{"object": "embedding", "index": i, "embedding": [0.5] * 1000} for i in range(100)]
    body = json.dumps({"object": "list", "data": vectors, "model": "m"})
    answer = await operate("embeddings", BLOCK, body, JSON)
    assert (answer.status, answer.body) == (200, body.encode())


async def test_a_guard_that_allows_everything_leaves_an_answer_alone() -> None:
    guard = TextGuard(find_words(["never"]))
    gateway = app("chat", "shim", guard, Upstream(answers()))
    answer = await asgi.request(gateway, "POST", *CALLS["chat"](False))
    assert answer.status == 200
