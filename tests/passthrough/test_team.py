"""The model lists of a router that is mounted as an app: the table of docs/team.md."""

from __future__ import annotations

import pytest

from asgi_aiproxy import Principal, ProviderRouter
from asgi_aiproxy.principal import SCOPE_KEY
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

pytestmark = pytest.mark.anyio

OWN = b'{"data":[{"id":"m-1"},{"id":"m-2"}],"models":[{"name":"models/m-1"},{"name":"models/m-2"}]}'
CLAUDE, GOOGLE = {"anthropic-version": "2023-06-01"}, {"x-goog-api-client": "genai"}


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/openai/v1/models", {}, "ours"),
        ("/openai/v1/models", CLAUDE, "Anthropic's form"),
        ("/anthropic/v1/models", {}, "ours"),
        ("/anthropic/v1/models", CLAUDE, "theirs"),
        ("/anthropic/v1/models", {"x-api-key": "token-of-ada"}, "ours"),
        ("/anthropic/v1/models", GOOGLE, "Google's form"),
        ("/gemini/v1/models", {}, "ours"),
        ("/gemini/v1/models", GOOGLE, "theirs"),
        ("/gemini/v1/models", {"x-goog-api-key": "token-of-ada"}, "theirs"),
        ("/gemini/v1beta/models", {}, "Google's form"),
        ("/gemini/v1beta/models", GOOGLE, "theirs"),
        ("/v1/models", {}, "not found"),
    ],
)
async def test_model_lists_are_served_as_documented(
    path: str, headers: dict[str, str], expected: str
) -> None:
    upstream = Upstream(answers(OWN))
    rows = [row.using("key-of-the-pool") for row in (OPENAI, ANTHROPIC, GEMINI)]
    router = ProviderRouter(providers=rows, transport=upstream.transport)
    who = {SCOPE_KEY: Principal("ada", models=("m-1",))}
    answer = await asgi.request(router, "GET", path, headers=headers, **who)
    if expected == "not found":
        assert answer.status == 404
        assert "/anthropic/" in answer.json["error"]["message"]
    elif expected == "theirs":
        assert answer.body == OWN
    elif expected == "Google's form":
        assert [model["name"] for model in answer.json["models"]] == ["models/m-1"]
    elif expected == "Anthropic's form":
        assert [(model["type"], model["id"]) for model in answer.json["data"]] == [("model", "m-1")]
    else:
        assert [model["id"] for model in answer.json["data"]] == ["m-1"]
        assert answer.json["object"] == "list"
