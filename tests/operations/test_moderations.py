"""Moderation: OpenAI's API for vendors with other categories, with the next target on failure."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from asgi_aiproxy import OpenAIShim, ProviderRouter
from asgi_aiproxy.operations.moderations import CATEGORIES
from asgi_aiproxy.providers import ANTHROPIC, MISTRAL, OPENAI
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses
from tests.support.strict_vendor import Endpoint, StrictVendor

pytestmark = pytest.mark.anyio


def mistral(body: Any, request: Any) -> Any:
    one = {
        "categories": {"sexual": False, "dangerous": False, "criminal": True, "health": False},
        "category_scores": {"sexual": 0.1, "dangerous": 0.2, "criminal": 0.9, "health": 0.3},
    }
    fine = {"categories": {"selfharm": False}, "category_scores": {"selfharm": 0.01}}
    results = [one if "bad" in text else fine for text in body["input"]]
    return {"id": "mod-1", "model": body["model"], "results": results}


ENDPOINT = Endpoint(
    "/v1/moderations", {"model": str, "input": (list, str)}, mistral, ("model", "input")
)


async def test_openais_sdk_reads_the_judgement_of_another_vendor() -> None:
    vendor = StrictVendor([ENDPOINT])
    router = ProviderRouter(
        {"omni-moderation-latest": (MISTRAL.using("k"), "mistral-moderation-latest")}
    )
    async with (
        serve(OpenAIShim(router, transport=vendor.transport)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="t", max_retries=0) as client,
    ):
        found = await client.moderations.create(input=["fine", "bad"])
    assert [each.flagged for each in found.results] == [False, True]
    assert found.model == "mistral-moderation-latest"
    bad = found.results[1].model_dump(by_alias=True)
    assert {name for name, flag in bad["categories"].items() if flag} == {"illicit"}
    assert set(CATEGORIES) <= bad["categories"].keys()
    assert bad["category_scores"]["illicit"] == 0.9
    assert bad["category_scores"]["illicit/violent"] == 0.2
    assert bad["category_scores"]["health"] == 0.3
    assert vendor.bodies == [{"model": "mistral-moderation-latest", "input": ["fine", "bad"]}]


@pytest.mark.parametrize("failing", [refuses(503), refuses(429), refuses(401)])
async def test_the_next_vendor_judges_when_one_fails(failing: Any) -> None:
    judged = json.dumps(mistral({"input": ["bad"], "model": "m"}, None)).encode()
    upstream = Upstream(failing, answers(judged))
    targets = [(OPENAI.using("a"), "omni-moderation-latest"), (MISTRAL.using("b"), "mm")]
    app = OpenAIShim(ProviderRouter({"safe": targets}), transport=upstream.transport)
    answer = await asgi.request(app, "POST", "/v1/moderations", {"model": "safe", "input": "bad"})
    assert answer.status == 200
    assert answer.json["results"][0]["flagged"] is True
    assert answer.header("aiproxy-provider") == "mistral"
    assert [body["model"] for body in upstream.bodies] == ["omni-moderation-latest", "mm"]


async def test_a_vendor_without_moderation_is_passed_over() -> None:
    judged = json.dumps(mistral({"input": ["fine"], "model": "m"}, None)).encode()
    upstream = Upstream(answers(judged))
    targets = [(ANTHROPIC.using("a"), "claude"), (MISTRAL.using("b"), "mm")]
    app = OpenAIShim(ProviderRouter({"safe": targets}), transport=upstream.transport)
    answer = await asgi.request(app, "POST", "/v1/moderations", {"model": "safe", "input": "hi"})
    assert answer.status == 200
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        (5, "input"),
        (["a", 5], "input[1]"),
        ([{"type": "image_url", "image_url": {"url": "https://a.example/b"}}], "input[0]"),
    ],
)
async def test_what_cannot_be_judged_is_refused_by_name(given: Any, param: str) -> None:
    app = OpenAIShim(MISTRAL.using("k"), transport=StrictVendor([ENDPOINT]).transport)
    answer = await asgi.request(app, "POST", "/v1/moderations", {"model": "m", "input": given})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_text_parts_are_judged() -> None:
    vendor = StrictVendor([ENDPOINT])
    app = OpenAIShim(MISTRAL.using("k"), transport=vendor.transport)
    body = {"model": "m", "input": [{"type": "text", "text": "bad"}]}
    answer = await asgi.request(app, "POST", "/v1/moderations", body)
    assert answer.json["results"][0]["flagged"] is True
