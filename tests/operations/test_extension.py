"""A package outside this one adds a vendor, a dialect and an operation through entry points."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.providers import discover, discover_apis
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

# What such a package contains: a vendor with OpenAI's API, one with a dialect of its own, which
# also has an operation of its own, that operation for clients, and a dialect for clients.
PACKAGE = '''
import json
import msgspec
from asgi_aiproxy.dialects.base import InboundDialect, Operation, OutboundDialect, ProviderRequest
from asgi_aiproxy.dialects.base import RequestSummary
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.messages import Response, Text, Usage
from asgi_aiproxy.operations import ClientOperation, OperationAPI
from asgi_aiproxy.providers import Provider, openai_compatible


class LanguageRequest(msgspec.Struct, frozen=True):
    model: str
    text: str


class LanguageResponse(msgspec.Struct, frozen=True):
    model: str
    language: str
    usage: Usage | None = None


class DetectLanguage(ClientOperation):
    kind = "language"
    endpoints = {"/v1/language": Operation("language.detect", "/v1/language", converts="language")}

    def decode_request(self, operation, body):
        fields = json.loads(body)
        if not isinstance(fields.get("text"), str):
            raise invalid("'text' must be a string.", "text")
        return LanguageRequest(fields["model"], fields["text"])

    def encode_response(self, response, request):
        return json.dumps({"language": response.language, "model": response.model}).encode()


class ScribeLanguage(OperationAPI):
    kind = "language"

    def encode_request(self, request):
        return ProviderRequest("/detect", {"phrase": request.text, "engine": request.model})

    def decode_response(self, bodies, request):
        found = json.loads(bodies[-1])
        usage = Usage(input=found["words"])
        return LanguageResponse(request.model, found["code"], usage)


class Scribe(OutboundDialect):
    name = "scribe"

    def encode_request(self, request):
        lines = [part.text for message in request.messages for part in message.parts]
        return ProviderRequest("/write", {"engine": request.model, "lines": lines})

    def decode_response(self, body):
        found = json.loads(body)
        usage = Usage(input=found["read"], output=found["wrote"])
        return Response(id="s1", model="quill", blocks=(Text(found["line"]),), usage=usage)

    def decode_error(self, status, body):
        return APIError(ErrorKind.UPSTREAM, "Scribe refused.", upstream_status=status)

    def decoder(self):
        raise NotImplementedError

    def models_request(self):
        return ProviderRequest("/engines", {})

    def decode_models(self, body):
        return tuple(json.loads(body))


class Telegraph(InboundDialect):
    """A client API: POST /telegraph {"to": model, "message": text} -> the text."""

    name = "telegraph"
    keepalive = None
    _OPERATION = Operation("telegraph", "", chat=True)

    def match(self, method, path):
        return self._OPERATION if (method, path) == ("POST", "/telegraph") else None

    def summarize(self, operation, body):
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return RequestSummary(msgspec.json.decode(fields["to"]), False, fields)

    def decode_request(self, operation, body):
        from asgi_aiproxy.messages import Message, Request

        fields = json.loads(body)
        message = Message("user", (Text(fields["message"]),))
        return Request(model=fields["to"], messages=(message,))

    def encode_response(self, response, request):
        return json.dumps({"reply": response.blocks[0].text + " STOP"}).encode()

    def encode_error(self, error):
        return json.dumps({"failure": error.message}).encode()

    def encode_stream_error(self, error):
        return self.encode_error(error)

    def encoder(self, request):
        raise NotImplementedError

    def native_request(self, operation, model, fields, *, stream):
        raise NotImplementedError

    def native_stream(self, *, usage_wanted, strict_format):
        raise NotImplementedError


PARROT = openai_compatible("https://parrot.example/v1", name="parrot")
SCRIBE = Provider(
    name="scribe",
    dialect=Scribe(),
    base_url="https://scribe.example",
    operations=(ScribeLanguage(),),
)
DETECT_LANGUAGE = DetectLanguage()
TELEGRAPH = Telegraph()
NOTHING = object()
'''
ENTRY_POINTS = """
[asgi_aiproxy.providers]
parrot = acme_ai:PARROT
scribe = acme_ai:SCRIBE

[asgi_aiproxy.apis]
language = acme_ai:DETECT_LANGUAGE
telegraph = acme_ai:TELEGRAPH
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install the package, as a wheel would, for one test."""

    def installed(entry_points: str = ENTRY_POINTS) -> None:
        (tmp_path / "acme_ai.py").write_text(PACKAGE)
        info = tmp_path / "acme_ai-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-ai\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield installed
    sys.modules.pop("acme_ai", None)


class Vendors:
    """Parrot (OpenAI's API) and Scribe (its own), at one address."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = json.loads(message["body"] or b"{}")
        self.seen.append((scope["path"], body))
        answer = {
            "/v1/chat/completions": {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "p",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Polly"},
                        "finish_reason": "stop",
                    }
                ],
            },
            "/write": {"line": "Dear Sir", "read": 2, "wrote": 2},
            "/detect": {"code": "fr", "words": 3},
        }[scope["path"]]
        data = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})


async def test_a_package_adds_a_vendor_a_dialect_and_an_operation(install: Any) -> None:
    install()
    vendors = Vendors()
    async with serve(vendors) as url:
        text = f"""
        anonymous = true
        [providers.parrot]
        base_url = "{url}/v1"
        keys = ["sk-p"]
        [providers.scribe]
        base_url = "{url}"
        keys = ["sk-s"]
        [routes]
        "polly" = ["parrot"]
        "quill" = ["scribe"]
        """
        app = build(Settings.model_validate(tomllib.loads(text)))
        async with asgi.lifespan(app):
            spoken = await asgi.chat(app, model="polly")
            assert spoken.json["choices"][0]["message"]["content"] == "Polly"
            written = await asgi.chat(app, model="quill")
            assert written.json["choices"][0]["message"]["content"] == "Dear Sir"
            assert written.json["usage"]["total_tokens"] == 4
            body = {"model": "quill", "text": "Bonjour à tous"}
            found = await asgi.request(app, "POST", "/v1/language", body)
            assert found.json == {"language": "fr", "model": "quill"}
            wired = await asgi.request(app, "POST", "/telegraph", {"to": "quill", "message": "Hi"})
            assert wired.json == {"reply": "Dear Sir STOP"}
            refused = await asgi.request(app, "POST", "/v1/language", {"model": "quill"})
            assert (refused.status, refused.json["error"]["param"]) == (400, "text")
            missing = await asgi.request(app, "POST", "/v1/language", {**body, "model": "polly"})
            assert missing.status == 404
            assert "'parrot'" in missing.json["error"]["message"]
    assert ("/detect", {"phrase": "Bonjour à tous", "engine": "quill"}) in vendors.seen
    assert ("/write", {"engine": "quill", "lines": ["Hi"]}) in vendors.seen


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("acme_ai:NOTHING", "neither an InboundDialect nor a ClientOperation"),
        ("acme_ai:ABSENT", "'odd' .acme_ai:ABSENT. cannot be loaded"),
        ("acme_absent:X", "cannot be loaded"),
    ],
)
def test_what_is_not_an_api_is_reported(install: Any, entry: str, words: str) -> None:
    install(f"[asgi_aiproxy.apis]\nodd = {entry}\n")
    with pytest.raises(ConfigurationError, match=words):
        discover_apis()


def test_without_such_packages_nothing_is_found() -> None:
    assert discover_apis() == []
    assert discover() == {}
