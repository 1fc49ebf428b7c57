"""A caller that is restricted to a model, or has a budget for it, cannot make a provider run
another one.

20,000 requests, each unusual in some way: spelled, encoded, cut, compressed or declared as
something else, for each client API and for the proxy. The forwarded requests are read by all
parsers of `body_readers`, in their most lenient way: none of them may find the other model.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import zlib
from collections.abc import AsyncIterable
from typing import Any
from urllib.parse import unquote

import pytest

from asgi_aiproxy import InjectKey, KeyPool, OpenAIShim, PassthroughProxy, Principal
from asgi_aiproxy.middleware import Authenticate, Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.principal import Budget, Limits
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OLLAMA, OPENAI, OPENROUTER, openai_compatible
from asgi_aiproxy.shim import AIShim
from asgi_aiproxy.stores import MemoryStore
from tests.support import body_readers as readers

CASES = 20_000
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "cheap",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "x"}}],
        "content": [{"type": "text", "text": "x"}],
        "message": {"role": "assistant", "content": "x"},
        "done": True,
        "done_reason": "stop",
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}],
    }
).encode()


class Answer:
    status = 200
    headers = (("content-type", "application/json"),)

    def __init__(self) -> None:
        self._left = ANSWER

    async def read(self) -> bytes:
        data, self._left = self._left, b""
        return data

    async def aclose(self) -> None:
        return None


class Recording:
    """A transport that keeps what would be sent, if all of it arrived."""

    def __init__(self) -> None:
        self.left: list[tuple[str, dict[str, str], bytes]] = []

    async def send(self, request: Any) -> Answer:
        body = request.body or b""
        if isinstance(body, AsyncIterable):
            body = b"".join([piece async for piece in body])
        self.left.append((request.url, dict(request.headers), body))
        return Answer()

    async def aclose(self) -> None:
        return None


def shim(row: Any, face: Any = OpenAIShim) -> Any:
    return lambda sent: face(row.using("sk-1"), transport=sent, attempts=1)


def proxy(row: Any) -> Any:
    return lambda sent: PassthroughProxy(row.using("sk-1"), transport=sent, paths="all")


def injected(sent: Any) -> Any:
    return InjectKey(PassthroughProxy(OPENAI, transport=sent), pool=KeyPool(["sk-1"]))


CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
GENERATE = "/v1beta/models/{}:generateContent"
OTHERS = ("/v1/embeddings", "/v1/images/generations", "/v1/moderations", "/v1/completions")
FORMS = ("/v1/audio/transcriptions", "/v1/images/edits")
LOCAL = openai_compatible("http://localai.example/v1")
APPS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "shim-openai": (shim(OPENAI), (CHAT, "/v1/responses", *OTHERS, *FORMS)),
    "shim-go": (shim(LOCAL), (CHAT, *OTHERS, *FORMS)),
    "shim-openrouter": (shim(OPENROUTER), (CHAT, "/v1/embeddings")),
    "shim-ollama": (shim(OLLAMA), (CHAT, "/v1/completions", "/v1/embeddings")),
    "shim-anthropic": (shim(ANTHROPIC, AIShim), (CHAT, MESSAGES, GENERATE)),
    "shim-gemini": (shim(GEMINI, AIShim), (CHAT, MESSAGES, GENERATE)),
    "proxy-openai": (proxy(OPENAI), (CHAT, "/v1/responses", "/v1/threads/runs", *OTHERS, *FORMS)),
    "proxy-anthropic": (proxy(ANTHROPIC), (MESSAGES, "/v1/messages/batches", "/model/{}/invoke")),
    "proxy-gemini": (proxy(GEMINI), (GENERATE, "/v1beta/cachedContents", "/v1beta/openai" + CHAT)),
    "injected": (injected, (CHAT, *FORMS)),
}


class Maker:
    """Makes unusual requests; most are nearly valid, so that some pass."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def one(self, *of: Any) -> Any:
        return self.random.choice(of)

    def seldom(self, chance: float = 0.1) -> bool:
        return self.random.random() < chance

    def model(self) -> str:
        if not self.seldom(0.3):
            return "cheap"
        return self.one("dear", "models/dear", "dear ", "../dear", "cheap/../dear", "d\\u0065ar")

    def name(self) -> str:
        return self.one(
            *("model", "MODEL", "Model", "mo\\u0064el", "model\\u0000", " model", "m\u00f8del"),
            *("models", "fallbacks", "preset", "route", "stream", "\u017ftream", "Max_Tokens"),
            *("max_to\u212aens", "model[]", "mode\u217c", "\\ufeffmodel", "fallback_model"),
        )

    def value(self, depth: int = 0) -> str:
        model = f'"{self.model()}"'
        if depth > 2 or self.seldom(0.6):
            return str(model)
        inner = self.value(depth + 1)
        name = self.one("model", self.name())
        return str(
            self.one(
                f"[{inner}]",
                f'{{"{name}":{inner}}}',
                f'{{"model":"cheap","{name}":{inner}}}',
                "null",
                "1",
                f'[{{"params":{{"model":"cheap","{name}":{inner}}}}}]',
            )
        )

    def json(self) -> bytes:
        said = [
            '"messages":[{"role":"user","content":"model dear"}]',
            '"contents":[{"parts":[{"text":"x"}]}]',
            '"input":"x"',
            '"prompt":"x"',
            '"max_tokens":5',
        ]
        said.insert(self.random.randrange(6), f'"model":"{self.model()}"')
        for _ in range(self.one(0, 0, 1, 2)):
            place = self.random.randrange(len(said))
            name = self.one(self.name(), "tools", "plugins", "requests", "session", "x")
            said.insert(place, f'"{name}" : {self.value()}')
        space = self.one("", "", " ", "\n\t")
        text = "{" + f",{space}".join(said) + "}"
        if self.seldom():
            text = self.one(
                "\ufeff" + text,
                text + '{"model":"dear"}',
                '{"model":"dear"}' + text,
                text.replace("5", "NaN"),
                text + "\0",
                '//"\n' + text,
                text.replace('"', "'"),
                text[:-1],
            )
        return text.encode(self.one(*["utf-8"] * 30, "utf-16", "utf-16-le", "utf-32", "utf-7"))

    def part(self) -> bytes:
        name = self.one(
            *('name="model"', "name=model", 'name="model"', 'name="prompt"', 'name="file"'),
            *('name="MODEL"', 'name="model[]"', 'name="models"', "name*=UTF-8''model"),
            *('name="prompt"; name="model"', 'name="model"; filename=""', "filename=model"),
            *('name="f"; filename="x; name=model"', 'name="f"; filename="a\\"; name=\\"model"'),
            *('name="mo%64el"', 'name="file"; filename="a.wav"', 'name="f";\r\n name="model"'),
        )
        line, lead = self.one(*["\r\n"] * 12, "\n"), self.one(*["--"] * 20, " --")
        after = self.one(*[""] * 15, " ", "\t", "x")
        more = self.one(
            *[""] * 12,
            "\r\nContent-Transfer-Encoding: base64",
            '\r\nContent-Disposition: form-data; name="model"',
            "\r\nContent-Type: text/plain; name=model",
            "\nX: y",
        )
        head = f"{lead}b{after}{line}Content-Disposition: form-data; {name}{more}{line}{line}"
        return head.encode() + self.model().encode() + line.encode()

    def form(self) -> bytes:
        parts = [self.part() for _ in range(self.one(0, 1, 1, 2))]
        good = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ncheap\r\n'
        parts.insert(self.random.randrange(len(parts) + 1), good)
        end = self.one(*[b"--b--\r\n"] * 8, b"--b--", b"--b--x", b"", b"--b-- \r\n" + self.part())
        body = self.one(*[b""] * 9, b"preamble\r\n", b"\r\n") + b"".join(parts) + end
        if self.seldom():
            at = self.random.randrange(len(body))
            scrap = self.one(
                b"\n--b\n", b"\r\n--b ", b"--b", b'--"b"\r\n', b"\0", b"\r", self.part()
            )
            body = body[:at] + scrap + body[at:]
        return bytes(body)

    def urlencoded(self) -> bytes:
        pairs = [f"model={self.model()}", "prompt=x"]
        for _ in range(self.one(0, 1, 1)):
            name = self.one(
                "model", "MODEL", "mode%6c", "model[]", "models", "x;model", "%u006dodel"
            )
            pairs.insert(self.random.randrange(3), f"{name}={self.model()}")
        return self.one("&", "&", "&", ";").join(pairs).encode()

    def request(self, path: str) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
        """Path, headers and body."""
        form = path in FORMS and not self.seldom(0.2)
        kind = (
            self.one("form", "form", "form", "url")
            if form
            else self.one(*["json"] * 8, "form", "url")
        )
        body = {"json": self.json, "form": self.form, "url": self.urlencoded}[kind]()
        types = {
            "json": ["application/json"] * 8 + ["application/json; charset=utf-8"],
            "form": ["multipart/form-data; boundary=b"] * 8 + ['multipart/form-data; boundary="b"'],
            "url": ["application/x-www-form-urlencoded"] * 4,
        }
        lies = [
            *("text/plain", "application/json; charset=utf-7", "multipart/form-data; boundary=x"),
            *("multipart/form-data; boundary=b; boundary=x", "application/x-www-form-urlencoded"),
            *('multipart/form-data; x="; boundary=x"; boundary=b', "application/json", "text/json"),
            *(
                "multipart/form-data; boundary*=UTF-8''x; boundary=b",
                "",
                "application/octet-stream",
            ),
        ]
        given = self.one(*lies) if self.seldom(0.15) else self.one(*types[kind])
        headers = [(b"content-type", given.encode())] if given else []
        if self.seldom(0.05):
            coding = self.one(b"gzip", b"deflate", b"identity", b"identity, gzip")
            headers.append((b"content-encoding", coding))
            body = {b"gzip": gzip.compress, b"deflate": zlib.compress}.get(coding, bytes)(body)
        if self.seldom(0.03):
            headers.append((b"azureml-model-deployment", self.model().encode()))
        named = self.one(
            *["cheap"] * 6, "dear", "%2e%2e", "cheap%2f..%2fdear", "cheap%3fx", "dea%72"
        )
        path = path.replace("{}", named)
        if self.seldom(0.05):
            path += self.one("?model=dear", "?a=1;model=dear", "?mode%6c=dear", "?model=cheap")
        return path, headers, body


async def ask(app: Any, maker: Maker, path: str, headers: Any, body: bytes) -> int:
    """The status of the response to a body in pieces, or at once with its length."""
    pieces = [body]
    if maker.seldom(0.4):
        size = maker.random.randrange(1, len(body) + 2)
        pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    else:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    waiting = list(reversed(pieces))
    status = 0

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": waiting.pop(), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": unquote(plain),
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": ("x", 80),
    }
    await app(scope, receive, send)
    return status


def run_by(url: str, headers: dict[str, str], body: bytes) -> set[str]:
    """All models that some server might run for a request."""
    found = readers.everything(headers.get("content-type", ""), body)
    plain = url
    for _ in range(4):
        plain = unquote(plain)
    path, _, query = plain.partition("?")
    found |= set(re.findall(r"/(?:models?|deployments)/([^/:]+)", path, re.IGNORECASE))
    found |= {pair.partition("=")[2] for pair in re.split("[&;]", query) if "model" in pair.lower()}
    return found | {value for name, value in headers.items() if "model" in name}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", ["bound", "budget"])
@pytest.mark.parametrize("name", APPS)
async def test_no_other_model_is_run_than_the_one_that_was_checked(name: str, who: str) -> None:
    make, paths = APPS[name]
    sent = Recording()
    app = make(sent)
    if who == "bound":
        caller = Principal("ada", models=("cheap",))
    else:
        caller = Principal("bob", limits=Limits(budgets=(Budget.usd(1_000_000),)))
        prices = Prices({"cheap": Price(input=1, output=1)}, listed=False)
        app = Quota(app, store=MemoryStore(), prices=prices)
    app = Authenticate(app, identify=lambda scope: caller)
    maker, passed = Maker(f"{name}-{who}"), 0
    cases = CASES // len(APPS) // 2
    for case in range(cases):
        path, headers, body = maker.request(maker.one(*paths))
        sent.left.clear()
        status = await ask(app, maker, path, headers, body)
        assert 200 <= status < 500, (case, status, path, headers, body)
        passed += status == 200
        for url, given, leaving in sent.left:
            wrong = {model for model in run_by(url, given, leaving) if "dear" in model}
            assert not wrong, (case, url, given, leaving, path, headers, body)
    assert passed > cases // 20, "hardly anything passed: nothing was tried"


pytestmark = pytest.mark.anyio
