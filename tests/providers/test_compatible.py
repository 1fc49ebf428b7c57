"""Vendors with an OpenAI-compatible API: what is peculiar to each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError, OpenAIShim
from asgi_aiproxy.providers import (
    DASHSCOPE,
    GITHUB,
    HUNYUAN,
    JINA,
    MINIMAX,
    MOONSHOT,
    SILICONFLOW,
    TOGETHER,
    VOLCENGINE,
    VOYAGE,
    XAI,
    ZAI,
    Provider,
    cloudflare,
    databricks,
    snowflake,
)
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses, streams

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Hi"}]


async def sent(provider: Provider, **members: Any) -> tuple[dict[str, Any], asgi.Answer]:
    upstream = Upstream(answers())
    answer = await asgi.chat(
        OpenAIShim(provider.using("k"), transport=upstream.transport), **members
    )
    (body,) = upstream.bodies
    return {n: v for n, v in body.items() if n not in ("model", "messages")}, answer


@pytest.mark.parametrize(
    ("row", "members", "expected"),
    [
        (DASHSCOPE, {"reasoning_effort": "high"}, {"enable_thinking": True}),
        (DASHSCOPE, {"reasoning_effort": "none"}, {"enable_thinking": False}),
        (
            DASHSCOPE,
            {"reasoning_effort": "low", "enable_thinking": False},
            {"enable_thinking": False},
        ),
        (SILICONFLOW, {"reasoning_effort": "none"}, {"enable_thinking": False}),
        (ZAI, {"reasoning_effort": "high"}, {"thinking": {"type": "enabled"}}),
        (ZAI, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (ZAI, {"reasoning_effort": None}, {}),
        (ZAI, {"user": "ann"}, {"user_id": "ann"}),
        (VOLCENGINE, {"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}),
        (VOLCENGINE, {"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        (VOLCENGINE, {"thinking": {"type": "auto"}}, {"thinking": {"type": "auto"}}),
        (HUNYUAN, {"enable_enhancement": True}, {"enable_enhancement": True}),
        (MOONSHOT, {"temperature": 0.7}, {"temperature": 0.7}),
        (MINIMAX, {}, {"reasoning_split": True}),
        (MINIMAX, {"reasoning_split": False}, {"reasoning_split": False}),
        (MOONSHOT, {"max_completion_tokens": 9}, {"max_tokens": 9}),
        (snowflake("a"), {"max_tokens": 9}, {"max_completion_tokens": 9}),
    ],
)
async def test_members_in_the_vendors_words(row: Provider, members: Any, expected: Any) -> None:
    body, answer = await sent(row, **members)
    assert body == expected
    assert answer.header("aiproxy-ignored") is None


async def test_a_temperature_above_the_vendors_is_reported() -> None:
    body, answer = await sent(MOONSHOT, temperature=1.5)
    assert body == {"temperature": 1}
    assert answer.header("aiproxy-ignored") == "temperature"


@pytest.mark.parametrize(
    ("row", "members", "expected"),
    [
        (VOYAGE, {"dimensions": 256}, {"output_dimension": 256}),
        (VOYAGE, {"encoding_format": "float"}, {}),
        (VOYAGE, {"input_type": "document", "truncation": False},
         {"input_type": "document", "truncation": False}),
        (JINA, {"encoding_format": "base64", "dimensions": 8}, {"dimensions": 8}),
        (JINA, {"input_type": "query", "late_chunking": True},
         {"task": "retrieval.query", "late_chunking": True}),
    ],
)  # fmt: skip
async def test_embeddings_in_the_vendors_words(row: Provider, members: Any, expected: Any) -> None:
    vector = b'{"object":"list","data":[{"index":0,"embedding":[0.5]}],"model":"m"}'
    upstream = Upstream(answers(vector))
    app = OpenAIShim(row.using("k"), transport=upstream.transport)
    body = {"model": "m", "input": "Hi", "user": "ann", **members}
    answer = await asgi.request(app, "POST", "/v1/embeddings", body)
    assert answer.status == 200
    assert upstream.bodies == [{"model": "m", "input": ["Hi"], **expected}]
    assert answer.header("aiproxy-ignored") == "user"


@pytest.mark.parametrize(
    ("row", "members", "expected", "ignored"),
    [
        (XAI, {"size": "1024x1024", "n": 2}, {"aspect_ratio": "1:1", "n": 2}, None),
        (XAI, {"size": "1792x1024", "style": "vivid"}, {"aspect_ratio": "16:9"}, "style"),
        (XAI, {"size": "1000x300"}, {}, "size"),
        (XAI, {"size": "auto", "quality": "low"}, {"quality": "low"}, None),
        (TOGETHER, {"size": "1024x768", "response_format": "b64_json", "quality": "hd"},
         {"width": 1024, "height": 768, "response_format": "base64"}, "quality"),
        (TOGETHER, {"width": 512, "steps": 4}, {"width": 512, "steps": 4}, None),
        (SILICONFLOW, {"size": "1024x1024", "n": 2}, {"image_size": "1024x1024", "batch_size": 2},
         None),
    ],
)  # fmt: skip
async def test_images_in_the_vendors_words(
    row: Provider, members: Any, expected: Any, ignored: Any
) -> None:
    upstream = Upstream(answers(b'{"created":1,"data":[{"url":"https://a.example/b.png"}]}'))
    app = OpenAIShim(row.using("k"), transport=upstream.transport)
    body = {"model": "m", "prompt": "A cat", **members}
    answer = await asgi.request(app, "POST", "/v1/images/generations", body)
    assert answer.status == 200
    assert upstream.bodies == [{"model": "m", "prompt": "A cat", **expected}]
    assert answer.header("aiproxy-ignored") == ignored


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        (cloudflare("0a1b"), "https://api.cloudflare.com/client/v4/accounts/0a1b/ai/v1"),
        (snowflake("org-acc"), "https://org-acc.snowflakecomputing.com/api/v2/cortex/v1"),
        (
            databricks("dbc-1.cloud.databricks.com"),
            "https://dbc-1.cloud.databricks.com/serving-endpoints",
        ),
        (cloudflare(base_url="https://gateway.example/v1"), "https://gateway.example/v1"),
        (snowflake(base_url="https://a.example/v1"), "https://a.example/v1"),
        (databricks(base_url="https://a.example/serving-endpoints"),
         "https://a.example/serving-endpoints"),
    ],
)  # fmt: skip
async def test_an_account_has_an_address(provider: Provider, url: str) -> None:
    upstream = Upstream(answers())
    await asgi.chat(OpenAIShim(provider.using("k"), transport=upstream.transport))
    assert str(upstream.requests[0].url) == f"{url}/chat/completions"


@pytest.mark.parametrize("make", [cloudflare, snowflake, databricks])
@pytest.mark.parametrize("account", ["", "a/b", "https://a.example"])
def test_an_account_or_an_address_is_required(make: Any, account: str) -> None:
    with pytest.raises(ConfigurationError, match="account is required"):
        make(account)


@pytest.mark.parametrize(
    ("provider", "url", "body"),
    [
        (GITHUB, "https://models.github.ai/catalog/models", b'[{"id":"openai/gpt-4.1"}]'),
        (TOGETHER, "https://api.together.xyz/v1/models", b' [{"id":"openai/gpt-4.1"}]'),
    ],
)
async def test_a_list_of_models_may_be_bare_and_elsewhere(
    provider: Provider, url: str, body: bytes
) -> None:
    upstream = Upstream(answers(body))
    app = OpenAIShim(provider.using("k"), transport=upstream.transport)
    listed = (await asgi.request(app, "GET", "/v1/models")).json
    assert [model["id"] for model in listed["data"]] == ["openai/gpt-4.1"]
    assert str(upstream.requests[0].url) == url


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "status"), [(1004, 200), (1002, 200), (1008, 200), (1026, 400), (1013, 502)]
)
async def test_an_error_of_minimax_has_status_200(code: int, status: int, stream: bool) -> None:
    error = {"base_resp": {"status_code": code, "status_msg": "No."}, "choices": None}
    text = json.dumps(error).encode()
    failed = streams(b"data: " + text + b"\n\n") if stream else answers(text)
    good = streams() if stream else answers()
    upstream = Upstream(*([failed, good] if status == 200 else [failed] * 6))
    app = OpenAIShim(MINIMAX.using(["k1", "k2"]), transport=upstream.transport, attempts=1)
    answer = await asgi.chat(app, stream=stream)
    assert answer.status == status
    if status == 400:
        assert answer.json["error"]["message"] == "No."


async def test_numbered_errors_decide_what_is_tried_next() -> None:
    refusal = refuses(400, b'{"code":20012,"message":"Model does not exist.","data":null}')
    upstream = Upstream(refusal, answers())
    app = OpenAIShim(SILICONFLOW.using(["k1", "k2"]), transport=upstream.transport)
    assert (await asgi.chat(app)).status == 200
