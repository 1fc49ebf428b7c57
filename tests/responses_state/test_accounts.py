"""Which account continues a conversation, and what it is judged by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from asgi_aiproxy import (
    Authenticate,
    Budget,
    ConfigurationError,
    Key,
    KeyPool,
    Limits,
    MemoryStore,
    OpenAIShim,
    Principal,
    ProviderRouter,
    Quota,
    ResponseState,
)
from asgi_aiproxy.keys.encryption import Sealer
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.providers import OPENAI, azure, openai_compatible
from asgi_aiproxy.testing import serve
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Step, Upstream, answers, sse, streams

pytestmark = pytest.mark.anyio

REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hm.", "annotations": []}],
}


def response(id: str, *, tokens: int = 10, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": tokens, "output_tokens": 5, "total_tokens": tokens + 5}
    shared = {"object": "response", "model": "m", "status": "completed", "usage": usage}
    return {"id": id, **shared, "output": [REASONING, MESSAGE], **more}


def streamed(id: str) -> Step:
    found = response(id)
    return streams(
        *sse(
            {"type": "response.created", "response": {**found, "output": []}},
            {"type": "response.output_text.delta", "output_index": 0, "delta": "Hm."},
            {"type": "response.completed", "response": found},
        )
    )


def pool() -> KeyPool:
    keys = [Key(f"sk-secret-{n}", id=f"k{n}") for n in range(3)]
    return KeyPool(keys, strategy="round_robin")


async def test_encrypted_reasoning_returns_to_the_key_that_made_it() -> None:
    upstream = Upstream(*(streamed(f"resp_{n}") for n in range(6)))
    app = OpenAIShim(OPENAI.using(pool()), transport=upstream.transport)
    async with (
        serve(app) as url,
        connect(f"ws{url.removeprefix('http')}/v1/responses", proxy=None) as connection,
    ):

        async def turn(**members: Any) -> None:
            members = {"type": "response.create", "model": "m", "store": False, **members}
            await connection.send(json.dumps(members))
            while json.loads(await connection.recv())["type"] != "response.completed":
                pass

        for first in (0, 2, 4):
            await turn(input=f"question {first}")
            await turn(input="And?", previous_response_id=f"resp_{first}")
    keys = upstream.keys
    assert keys[0::2] == keys[1::2]
    assert len(set(keys)) == 3
    items = upstream.bodies[1]["input"]
    assert [item["type"] for item in items] == ["message", "reasoning", "message", "message"]
    assert items[1] == REASONING
    assert "id" not in items[2]
    assert "previous_response_id" not in upstream.bodies[1]


async def test_another_vendor_is_not_sent_the_reasoning() -> None:
    upstream = Upstream(answers(json.dumps(response("resp_1")).encode()), answers())
    other = openai_compatible("http://other/v1", name="other").using("sk-other-secret")
    router = ProviderRouter({"m": OPENAI.using(pool()), "n": other})
    state = ResponseState(MemoryStore(), stash=True)
    app = OpenAIShim(router, transport=upstream.transport, response_state=state)
    first = await asgi.request(app, "POST", "/v1/responses", {"model": "m", "input": "Hi"})
    assert first.status == 200
    body = {"model": "n", "input": "And?", "previous_response_id": "resp_1"}
    second = await asgi.request(app, "POST", "/v1/responses", body)
    assert second.status == 200, second.body
    assert second.json["previous_response_id"] == "resp_1"
    assert b"gAAAA" not in upstream.requests[1].content
    assert "Hm." in json.dumps(upstream.bodies[1])


async def test_azure_keeps_responses_as_openai_does() -> None:
    bodies = [response("resp_1"), response("resp_2"), response("resp_1")]
    upstream = Upstream(*(answers(json.dumps(body).encode()) for body in bodies))
    row = azure("https://resource.openai.azure.com").using(pool())
    app = OpenAIShim(row, transport=upstream.transport)
    for members in ({}, {"previous_response_id": "resp_1"}):
        body = {"model": "deployment", "input": "Hi", **members}
        assert (await asgi.request(app, "POST", "/v1/responses", body)).status == 200
    assert (await asgi.request(app, "GET", "/v1/responses/resp_1")).status == 200
    assert len({request.headers["api-key"] for request in upstream.requests}) == 1
    assert [request.url.path for request in upstream.requests] == [
        "/openai/v1/responses",
        "/openai/v1/responses",
        "/openai/v1/responses/resp_1",
    ]
    assert upstream.bodies[1]["previous_response_id"] == "resp_1"
    assert upstream.requests[2].method == "GET"


async def test_an_only_caller_may_refer_to_responses_that_the_gateway_does_not_know() -> None:
    upstream = Upstream(answers(json.dumps(response("resp_2")).encode()))
    body = {"model": "m", "input": "Hi", "previous_response_id": "resp_elsewhere"}
    alone = OpenAIShim(OPENAI.using(pool()), transport=upstream.transport)
    assert (await asgi.request(alone, "POST", "/v1/responses", body)).status == 200
    assert upstream.bodies[0]["previous_response_id"] == "resp_elsewhere"
    shared = Authenticate(alone, verify=static_tokens({"token": "a"}))
    headers = {"authorization": "Bearer token"}
    refused = await asgi.request(shared, "POST", "/v1/responses", body, headers=headers)
    assert refused.status == 404
    count = await asgi.request(shared, "POST", "/v1/responses/input_tokens", body, headers=headers)
    assert count.status == 404  # nor is it counted
    own = OpenAIShim(OPENAI, transport=upstream.transport, allow_client_keys=True)
    known = Authenticate(own, verify=static_tokens({"token": "a"}))
    headers["x-provider-key"] = "sk-of-the-caller"
    requested = await asgi.request(known, "POST", "/v1/responses", body, headers=headers)
    assert requested.status == 200
    assert upstream.keys[-1] == "sk-of-the-caller"


async def test_an_only_provider_is_requested_for_responses_that_the_gateway_does_not_know() -> None:
    upstream = Upstream(answers(json.dumps(response("resp_1")).encode()))
    alone = OpenAIShim(OPENAI.using(pool()), transport=upstream.transport)
    found = await asgi.request(alone, "GET", "/v1/responses/resp_1?include[]=a")
    assert found.status == 200
    assert upstream.requests[0].url.path == "/v1/responses/resp_1"
    shared = Authenticate(alone, verify=static_tokens({"token": "a"}))
    headers = {"authorization": "Bearer token"}
    refused = await asgi.request(shared, "GET", "/v1/responses/resp_1", headers=headers)
    assert refused.status == 404
    assert len(upstream.requests) == 1


async def test_a_router_passes_conversations_to_the_provider_unless_it_has_a_stash() -> None:
    upstream = Upstream(answers(b'{"id": "conv_1"}'))
    row = OPENAI.using(pool())
    options: dict[str, Any] = {"transport": upstream.transport, "providers": [row]}
    router = ProviderRouter(**options)
    made = await asgi.request(router, "POST", "/openai/v1/conversations", {})
    assert made.json == {"id": "conv_1"}
    router = ProviderRouter(**options, response_state=ResponseState(MemoryStore(), stash=True))
    made = await asgi.request(router, "POST", "/openai/v1/conversations", {})
    assert made.json["object"] == "conversation"
    assert len(upstream.requests) == 1


async def test_a_budget_is_judged_by_the_conversation_that_the_provider_keeps() -> None:
    bodies = [response("resp_1", tokens=60_000), response("resp_2")]
    upstream = Upstream(*(answers(json.dumps(body).encode()) for body in bodies))
    shim = OpenAIShim(OPENAI.using(pool()), transport=upstream.transport)
    prices = Prices({"m": Price(input="1", output="1")}, listed=False)
    caller = Principal("a", limits=Limits(budgets=(Budget.usd(0.10),)))
    app = Authenticate(
        Quota(shim, store=MemoryStore(), prices=prices), verify=static_tokens({"token": caller})
    )
    headers = {"authorization": "Bearer token"}
    body: dict[str, Any] = {"model": "m", "input": "Hi", "max_output_tokens": 16}
    async with app:
        first = await asgi.request(app, "POST", "/v1/responses", body, headers=headers)
        assert first.status == 200
        # Six cents are spent, and the conversation costs six more.
        body["previous_response_id"] = "resp_1"
        second = await asgi.request(app, "POST", "/v1/responses", body, headers=headers)
        assert second.status == 429
        del body["previous_response_id"]
        third = await asgi.request(app, "POST", "/v1/responses", body, headers=headers)
        assert third.status == 200


async def test_a_sealing_key_is_required_where_content_leaves_the_process() -> None:
    class Remote(MemoryStore):
        pass

    ResponseState(MemoryStore(), stash=True)
    ResponseState(Remote(), stash=True, sealer=Sealer(Sealer.generate()))
    for wrong in ({"stash": True}, {"seconds": 0}, {"max_bytes": 0}, {"store": "redis://"}):
        with pytest.raises(ConfigurationError):
            ResponseState(**wrong)  # type: ignore[arg-type]
