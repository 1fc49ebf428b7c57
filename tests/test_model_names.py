"""Valid model names, and the model that is used if none is named."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from asgi_aiproxy import OpenAIShim, Principal, ProviderRouter
from asgi_aiproxy.middleware import Authenticate
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI, azure
from asgi_aiproxy.shim import AIShim
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

AWAY = [
    "..",
    ".",
    "../..",
    "a/../../x",
    "a\\..\\..\\x",
    "%2e%2e",
    "%2E%2E/x",
    "a%2f..%2fx",
    "a%5c..%5cx",
]
AWAY += ["%252e%252e", "..;a=b/x", "a\0", "a\r\nx: y", "a%00", "a\x7f", "a\u2028"]
OLD_AZURE = azure("https://a.example", api_version="2024-10-21")
VENDORS = [OLD_AZURE, azure("https://a.example"), OPENAI, ANTHROPIC, GEMINI]
IDS = ["azure-deployment", "azure", "openai", "anthropic", "gemini"]


@pytest.mark.parametrize("row", VENDORS, ids=IDS)
@pytest.mark.parametrize("model", AWAY)
async def test_no_model_leaves_the_base_of_its_provider(row: Any, model: str) -> None:
    upstream = Upstream(answers())
    app = AIShim(row.using("sk-1"), transport=upstream.transport)
    message = {"role": "user", "content": "Hi"}
    body = {"model": model, "messages": [message], "max_tokens": 9}
    contents = {"contents": [{"parts": [{"text": "Hi"}]}]}
    encoded = quote(model, safe="")
    for path, given in [
        ("/v1/chat/completions", body),
        ("/v1/messages", body),
        (f"/v1beta/models/{encoded}:generateContent", contents),
    ]:
        answer = await asgi.request(app, "POST", path, given)
        assert answer.status == 400, (path, answer.body)
        assert "Invalid model name" in answer.json["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("model", ["a/b", "a?b=c", "a#b", "a%b", "a;b"])
async def test_a_model_stays_one_segment_of_a_path(model: str) -> None:
    upstream = Upstream(answers())
    app = OpenAIShim(OLD_AZURE.using("sk-1"), transport=upstream.transport)
    await asgi.chat(app, model=model)
    path = f"/openai/deployments/{quote(model, safe='')}/chat/completions"
    assert upstream.requests[0].url.raw_path.decode().partition("?")[0] == path


JPEG = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nPNG\r\n--b--\r\n'
)
FORM = {"content-type": "multipart/form-data; boundary=b"}
UNNAMED = [
    ("/v1/moderations", {"input": "x"}, "omni-moderation-latest"),
    ("/v1/moderations", {"input": "x", "model": None}, "omni-moderation-latest"),
    ("/v1/images/generations", {"prompt": "x"}, "dall-e-2"),
    ("/v1/images/edits", {"prompt": "x"}, "gpt-image-1.5"),
    ("/v1/images/edits", JPEG, "gpt-image-1.5"),
    ("/v1/images/variations", JPEG, "dall-e-2"),
]


@pytest.mark.parametrize(("path", "body", "model"), UNNAMED)
async def test_where_openai_requires_no_model_its_default_is_routed_checked_and_sent(
    path: str, body: Any, model: str
) -> None:
    upstream = Upstream(answers(b"{}"))
    router = ProviderRouter({model: OPENAI.using("sk-1")})
    headers = FORM if isinstance(body, bytes) else {"content-type": "application/json"}
    inner = OpenAIShim(router, transport=upstream.transport)
    for allowed, status in [((), 200), ((model,), 200), (("gpt-4o",), 403)]:
        who = Principal("ada", models=allowed)
        app = Authenticate(inner, identify=lambda scope, who=who: who)
        length = {"content-length": str(len(body))} if isinstance(body, bytes) else {}
        answer = await asgi.request(app, "POST", path, body, headers={**headers, **length})
        assert answer.status == status, answer.body
    first, second = upstream.requests
    assert first.content == second.content
    if isinstance(body, bytes):
        named = (
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % model.encode()
        )
        assert first.content == named + body
        assert first.headers["content-length"] == str(len(first.content))
    else:
        assert upstream.bodies[0] == {**body, "model": model}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/audio/speech", {"input": "x", "voice": "alloy"}),
        ("/v1/moderations", {"input": "x", "model": ""}),
        ("/v1/audio/transcriptions", JPEG),
    ],
)
async def test_elsewhere_a_model_is_required(path: str, body: Any) -> None:
    app = OpenAIShim(OPENAI.using("sk-1"), transport=Upstream(answers()).transport)
    headers = FORM if isinstance(body, bytes) else {}
    answer = await asgi.request(app, "POST", path, body, headers=headers)
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")
