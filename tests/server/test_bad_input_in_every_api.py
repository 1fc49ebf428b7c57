"""Invalid input in every client API, at a real server: the API's own error, status and path."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from asgi_aiproxy import AIShim, ProviderRouter
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import MockProvider, serve

pytestmark = pytest.mark.anyio

VENDORS = ("openai", "anthropic", "gemini")
# Deeper than any parser follows. (From Python 3.14 on, it follows as far as its stack reaches.)
DEEP = 1_000_000
BAD_BASE64 = "!!!not*base64!!!"


@dataclass(frozen=True)
class Face:
    """How to write requests in a client API, and what its errors look like."""

    path: str  # with {model}
    content: Callable[[Any], dict[str, Any]]  # the request with the parts of one user message
    text: Callable[[str], Any]  # a part
    image: Callable[[str], Any]  # a part with a picture's base64
    where: str  # the path of the part number {at}
    native: str  # the vendor with this API
    list: str  # the name of the list of messages
    named: bool = True  # the body names the model

    def body(self, vendor: str, parts: Any, **more: Any) -> dict[str, Any]:
        return {**({"model": vendor} if self.named else {}), **self.content(parts), **more}


FACES = {
    "chat": Face(
        "/v1/chat/completions",
        lambda parts: {"messages": [{"role": "user", "content": parts}]},
        lambda text: {"type": "text", "text": text},
        lambda data: {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{data}"},
        },
        "messages[0].content[{at}]",
        "openai",
        "messages",
    ),
    "responses": Face(
        "/v1/responses",
        lambda parts: {"input": [{"role": "user", "content": parts}]},
        lambda text: {"type": "input_text", "text": text},
        lambda data: {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
        "input[0].content[{at}]",
        "openai",
        "input",
    ),
    "messages": Face(
        "/v1/messages",
        lambda parts: {"max_tokens": 9, "messages": [{"role": "user", "content": parts}]},
        lambda text: {"type": "text", "text": text},
        lambda data: {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": data},
        },
        "messages[0].content[{at}]",
        "anthropic",
        "messages",
    ),
    "gemini": Face(
        "/v1beta/models/{model}:generateContent",
        lambda parts: {"contents": [{"role": "user", "parts": parts}]},
        lambda text: {"text": text},
        lambda data: {"inlineData": {"mimeType": "image/png", "data": data}},
        "contents[0].parts[{at}]",
        "gemini",
        "contents",
        named=False,
    ),
}
EVERY_FACE = pytest.mark.parametrize("name", list(FACES))
TYPES = {400: "invalid_request_error", 404: "not_found_error", 405: "invalid_request_error"}
STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 405: "INVALID_ARGUMENT"}


def message_of(name: str, answer: httpx.Response, status: int) -> str:
    """The message and the param of an error in the API's own shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    error = found["error"]
    if name == "messages":
        assert found["type"] == "error"
        assert error["type"] == TYPES[status]
    elif name == "gemini":
        assert (error["code"], error["status"]) == (status, STATUSES[status])
    else:
        assert error["type"] == "invalid_request_error"
        assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"]
    return f"{error['message']} {error.get('param') or ''}"


@dataclass
class World:
    url: str
    mock: MockProvider
    client: httpx.AsyncClient

    async def post(self, path: str, content: Any, **headers: str) -> httpx.Response:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        sent = {"content-type": "application/json", **headers}
        return await self.client.post(self.url + path, content=data, headers=sent)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    mock = MockProvider()
    async with serve(mock) as vendors:
        rows = {
            "openai": OPENAI.using("sk-1", base_url=f"{vendors}/v1"),
            "anthropic": ANTHROPIC.using("sk-2", base_url=vendors),
            "gemini": GEMINI.using("sk-3", base_url=vendors),
        }
        names = {
            "openai": "gpt-4o",
            "anthropic": "claude-sonnet-4-5",
            "gemini": "gemini-2.5-flash",
        }
        router = ProviderRouter({n: (rows[n], names[n]) for n in VENDORS})
        async with (
            serve(AIShim(router, attempts=1)) as url,
            httpx.AsyncClient(timeout=60) as client,
        ):
            yield World(url, mock, client)


@EVERY_FACE
async def test_a_body_that_is_not_a_json_object_is_refused(world: World, name: str) -> None:
    face = FACES[name]
    good = json.dumps(face.body("openai", [face.text("Hi")])).encode()
    bodies = [b"", b"{not json", good[:-4], b"[]", b'"hello"', b"null", good + good, b"\xff\xfe"]
    for vendor in VENDORS:
        for body in bodies:
            answer = await world.post(face.path.format(model=vendor), body)
            assert "JSON" in message_of(name, answer, 400)
    assert world.mock.requests == []


def nested(face: Face, vendor: str, where: str, opening: str, closing: str, depth: int) -> bytes:
    """A request with a member of this depth."""
    body = json.dumps(face.body(vendor, [face.text("Hi")], **{where: "DEEP"}))
    return body.replace('"DEEP"', opening * depth + "1" + closing * depth).encode()


@EVERY_FACE
async def test_deep_nesting_is_refused(world: World, name: str) -> None:
    face = FACES[name]
    for vendor in VENDORS:
        for where in (face.list, "metadata"):
            deep = nested(face, vendor, where, "[", "]", DEEP)
            answer = await world.post(face.path.format(model=vendor), deep)
            message_of(name, answer, 400)
    assert world.mock.requests == []


@EVERY_FACE
@pytest.mark.parametrize("depth", [900, 10_000])
async def test_nesting_that_only_some_parsers_follow_is_refused_or_passed_on(
    world: World, name: str, depth: int
) -> None:
    face = FACES[name]
    for vendor in VENDORS:
        for where in (face.list, "metadata", "tools", "response_format", "hologram"):
            for opening, closing in (("[", "]"), ('[{"type":"object","a":', "}]")):
                deep = nested(face, vendor, where, opening, closing, depth)
                answer = await world.post(face.path.format(model=vendor), deep)
                if answer.status_code != 200:
                    message_of(name, answer, 400)


def wrong_parts(face: Face) -> list[tuple[str, Any]]:
    """Parts that cannot be, each with the end of its path."""
    text = face.text("Hi")
    unknown = {"type": "hologram", "hologram": "x"} if face.named else {"hologram": "x"}
    number = {**text, "text": 5}
    return [("", unknown), (".text", number), ("", 5), ("", face.image(BAD_BASE64))]


@EVERY_FACE
async def test_a_wrong_part_is_named_by_its_path(world: World, name: str) -> None:
    face = FACES[name]
    for vendor in VENDORS:
        if vendor == face.native:
            continue  # its own vendor judges
        for end, part in wrong_parts(face):
            body = face.body(vendor, [face.text("Look:"), part])
            answer = await world.post(face.path.format(model=vendor), body)
            message = message_of(name, answer, 400)
            assert face.where.format(at=1) + end in message, (vendor, part, message)
    assert world.mock.requests == []


WRONG_MEMBERS: dict[str, list[tuple[str, Any]]] = {
    "chat": [
        ("max_tokens", "many"),
        ("temperature", {}),
        ("tools", {}),
        ("tools", [{"type": "function"}]),
        ("stop", 5),
        ("stream", "yes"),
        ("messages", "Hi"),
        ("model", 5),
    ],
    "responses": [
        ("max_output_tokens", "many"),
        ("tools", {}),
        ("tools", [{"type": "function"}]),
        ("text", {"format": {"type": "odd"}}),
        ("reasoning", {"effort": "odd"}),
        ("stream", "yes"),
        ("input", 5),
        ("model", 5),
    ],
    "messages": [
        ("max_tokens", "many"),
        ("tools", {}),
        ("tools", [{"input_schema": {}}]),
        ("tool_choice", {"type": "odd"}),
        ("thinking", "yes"),
        ("stream", "yes"),
        ("messages", "Hi"),
        ("model", 5),
    ],
    "gemini": [
        ("generationConfig", {"maxOutputTokens": "many"}),
        ("generationConfig", {"candidateCount": 2}),
        ("tools", {}),
        ("tools", [{"functionDeclarations": [{}]}]),
        ("toolConfig", []),
        ("contents", 5),
        ("cachedContent", "cachedContents/abc"),
    ],
}


@EVERY_FACE
async def test_a_wrong_member_is_named(world: World, name: str) -> None:
    face = FACES[name]
    for vendor in VENDORS:
        if vendor == face.native:
            continue
        for member, value in WRONG_MEMBERS[name]:
            body = face.body(vendor, [face.text("Hi")], **{member: value})
            answer = await world.post(face.path.format(model=vendor), body)
            message = message_of(name, answer, 400)
            inner = next(iter(value)) if isinstance(value, dict) and value else ""
            assert member in message or inner in message, (vendor, member, message)
    assert world.mock.requests == []


@EVERY_FACE
async def test_a_line_of_five_megabytes_is_served(world: World, name: str) -> None:
    face = FACES[name]
    for vendor in VENDORS:
        body = face.body(vendor, [face.text("x" * 5_000_000)])
        answer = await world.post(face.path.format(model=vendor), body)
        assert answer.status_code == 200, answer.text[:500]
        assert len(world.mock.requests[-1].body) > 5_000_000


@EVERY_FACE
async def test_an_unknown_beta_is_no_error(world: World, name: str) -> None:
    face = FACES[name]
    for vendor in VENDORS:
        body = face.body(vendor, [face.text("Hi")])
        betas = {"anthropic-beta": "unheard-of-2031-01-01", "openai-beta": "unheard=of"}
        answer = await world.post(face.path.format(model=vendor), body, **betas)
        assert answer.status_code == 200, answer.text


@EVERY_FACE
async def test_an_unknown_model_is_named(world: World, name: str) -> None:
    face = FACES[name]
    body = face.body("no-such-model", [face.text("Hi")])
    answer = await world.post(face.path.format(model="no-such-model"), body)
    assert "'no-such-model'" in message_of(name, answer, 404)


@EVERY_FACE
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_a_405_that_says_which_are_right(
    world: World, name: str, method: str
) -> None:
    path = FACES[name].path.format(model="openai")
    answer = await world.client.request(method, world.url + path)
    message_of(name, answer, 405)
    assert answer.headers["allow"] == "POST"


CLIENT_HEADERS: dict[str, dict[str, str]] = {
    "chat": {},
    "responses": {},
    "messages": {"anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "k"},
}


@EVERY_FACE
async def test_an_unknown_id_or_path_is_a_404_in_the_clients_shape(world: World, name: str) -> None:
    paths = ["/v1/models/no-such-model", "/v1/no-such-path"]
    paths += ["/v1/responses/resp_nope"] if name == "responses" else []
    for path in paths:
        answer = await world.client.get(world.url + path, headers=CLIENT_HEADERS[name])
        if path.startswith("/v1/responses") and answer.status_code == 400:
            continue  # responses are not kept here
        message_of(name, answer, 404)
    if name == "gemini":
        answer = await world.client.post(f"{world.url}/v1beta/models/openai:noSuchMethod")
        message_of(name, answer, 404)
