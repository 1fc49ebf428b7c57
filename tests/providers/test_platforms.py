"""Claude on Amazon Bedrock and Vertex AI, and Gemini on Vertex AI."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from asgi_aiproxy import AnthropicShim, ConfigurationError, GeminiShim, OpenAIShim
from asgi_aiproxy.dialects import HOSTED_ANTHROPIC
from asgi_aiproxy.providers import Provider, bedrock_anthropic, vertex, vertex_anthropic
from tests.support import asgi_client as asgi
from tests.support.event_stream import event
from tests.support.scripted_upstream import Step, Upstream, answers, refuses, streams
from tests.support.stream_fixtures import HERE

pytestmark = pytest.mark.anyio

KEY = "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HI = [{"role": "user", "content": "Hi"}]
CLAUDE = (HERE / "streams" / "anthropic" / "reasoning-tool.sse").read_bytes()
MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-4-5","content":'
    b'[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":1,"output_tokens":1}}'
)
GEMINI = (
    b'{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"finishReason":'
    b'"STOP"}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}'
)


def chunks(stream: bytes) -> bytes:
    """Anthropic's event stream in the events of Bedrock."""
    data = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    payloads = ({"bytes": base64.b64encode(piece).decode(), "p": "abc"} for piece in data)
    return b"".join(event("chunk", payload) for payload in payloads)


def binary(*pieces: bytes) -> Step:
    return Step(list(pieces), headers={"content-type": "application/vnd.amazon.eventstream"})


def messages(**members: Any) -> dict[str, Any]:
    return {"model": "anthropic.claude-opus-4-5", "max_tokens": 9, "messages": HI, **members}


async def post(provider: Provider, upstream: Upstream, **members: Any) -> asgi.Answer:
    app = AnthropicShim(provider, transport=upstream.transport)
    headers = {"anthropic-beta": "a-1, b-2", "anthropic-version": "2023-06-01"}
    return await asgi.request(app, "POST", "/v1/messages", messages(**members), headers=headers)


# ── Claude on Bedrock ────────────────────────────────────────────────────────


async def test_a_call_of_anthropics_api_reaches_bedrock_as_invoke_model() -> None:
    upstream = Upstream(answers(MESSAGE))
    provider = bedrock_anthropic("us-east-1").using(KEY)
    answer = await post(provider, upstream, x_new={"a": 1})
    assert answer.body == MESSAGE
    (request,) = upstream.requests
    assert str(request.url) == (
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-opus-4-5/invoke"
    )
    assert upstream.bodies == [
        {
            "anthropic_version": "bedrock-2023-05-31",
            "anthropic_beta": ["a-1", "b-2"],
            "max_tokens": 9,
            "messages": HI,
            "x_new": {"a": 1},
        }
    ]
    assert "anthropic-beta" not in request.headers
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_stream_from_bedrock_is_anthropics_event_by_event(size: int) -> None:
    data = chunks(CLAUDE)
    upstream = Upstream(binary(*(data[at : at + size] for at in range(0, len(data), size))))
    answer = await post(bedrock_anthropic("us-east-1").using(KEY), upstream, stream=True)
    assert str(upstream.requests[0].url).endswith("/invoke-with-response-stream")
    assert "stream" not in upstream.bodies[0]
    assert answer.body == CLAUDE


@pytest.mark.parametrize(
    ("inner", "framed"),
    [
        (b'{"index":0,"type":"ping"}', b'event: ping\ndata: {"index":0,"type":"ping"}\n\n'),
        (b'{"type":"ping"}', b'event: ping\ndata: {"type":"ping"}\n\n'),
        (b'{"type":\n"ping"}', b'event: ping\ndata: {"type":\ndata: "ping"}\n\n'),
        (b'{"index":0}', b'data: {"index":0}\n\n'),
        (b'{"type":7}', b'data: {"type":7}\n\n'),
        (
            b'{"type":"content_block_delta","index":0}',
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n',
        ),
        (
            b'{"type":"content_block_delta",\n"index":0}',
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta",\ndata: "index":0}\n\n',
        ),
        (
            b'{"type":"content_block_delta",\r"index":0}',
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta",\ndata: "index":0}\n\n',
        ),
    ],
    ids=["last", "first", "two lines", "none", "number", "delta", "delta in two lines", "with CR"],
)
def test_every_form_of_an_event_is_framed_with_its_type(inner: bytes, framed: bytes) -> None:
    reframer = HOSTED_ANTHROPIC.reframer("application/vnd.amazon.eventstream")
    assert reframer is not None
    chunk = event("chunk", {"bytes": base64.b64encode(inner).decode(), "p": "abc"})
    assert reframer.feed(chunk + chunk) == framed * 2


async def test_a_stream_from_bedrock_reaches_other_client_apis() -> None:
    upstream = Upstream(binary(chunks(CLAUDE)))
    app = OpenAIShim(bedrock_anthropic("us-east-1").using(KEY), transport=upstream.transport)
    answer = await asgi.chat(app, stream=True)
    finish = [e["choices"][0]["finish_reason"] for e in answer.events[:-1] if e["choices"]]
    assert finish[-1] == "tool_calls"
    assert answer.events[-1] == "[DONE]"


async def test_an_exception_in_mid_stream_is_anthropics_error() -> None:
    begin = b"".join(CLAUDE.partition(b"event: content_block_stop")[:1])
    exception = event("throttlingException", {"message": "Too many tokens."}, "exception")
    upstream = Upstream(binary(chunks(begin), exception))
    answer = await post(bedrock_anthropic("us-east-1").using(KEY), upstream, stream=True)
    assert answer.body.startswith(begin)
    last = answer.events[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "rate_limit_error")
    assert last["error"]["message"] == "Too many tokens."


async def test_a_stream_that_is_cut_short_ends_with_an_error() -> None:
    upstream = Upstream(binary(chunks(CLAUDE)[:-9]))
    answer = await post(bedrock_anthropic("us-east-1").using(KEY), upstream, stream=True)
    assert answer.events[-1]["type"] == "error"
    assert b"message_stop" not in answer.body


async def test_a_refusal_of_the_platform_has_the_clients_format() -> None:
    kind = "ValidationException:http://internal.amazon.com/"
    refusal = refuses(400, b'{"message":"max_tokens: too large"}', x_amzn_errortype=kind)
    answer = await post(bedrock_anthropic("us-east-1").using(KEY), Upstream(refusal))
    assert (answer.status, answer.json["type"]) == (400, "error")
    assert answer.json["error"]["message"] == "max_tokens: too large"


# ── Claude on Vertex AI ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("europe-west1", "europe-west1-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_anthropics_api_reaches_vertex(
    region: str, host: str, stream: bool
) -> None:
    upstream = Upstream(streams(CLAUDE) if stream else answers(MESSAGE))
    provider = vertex_anthropic("my-project", region).using("ya29.token")
    answer = await post(provider, upstream, model="claude-opus-4-5@20251101", stream=stream)
    assert answer.body == (CLAUDE if stream else MESSAGE)
    (request,) = upstream.requests
    assert str(request.url) == (
        f"https://{host}/v1/projects/my-project/locations/{region}/publishers/anthropic/models/"
        f"claude-opus-4-5@20251101:{'streamRawPredict' if stream else 'rawPredict'}"
    )
    assert upstream.bodies == [
        {
            "anthropic_version": "vertex-2023-10-16",
            "max_tokens": 9,
            "messages": HI,
            "stream": stream,
        }
    ]
    assert request.headers["authorization"] == "Bearer ya29.token"
    assert request.headers["anthropic-beta"] == "a-1, b-2"


async def test_other_client_apis_reach_claude_on_vertex() -> None:
    upstream = Upstream(streams(CLAUDE))
    provider = vertex_anthropic("p").using("ya29.token")
    answer = await asgi.chat(OpenAIShim(provider, transport=upstream.transport), stream=True)
    assert answer.events[-1] == "[DONE]"
    assert ":streamRawPredict" in str(upstream.requests[0].url)


async def test_tokens_are_counted_by_vertex() -> None:
    upstream = Upstream(answers(b'{"input_tokens":3}'))
    app = AnthropicShim(vertex_anthropic("p").using("t"), transport=upstream.transport)
    body = {"model": "claude-opus-4-5", "messages": HI}
    assert (await asgi.request(app, "POST", "/v1/messages/count_tokens", body)).json == {
        "input_tokens": 3
    }
    assert str(upstream.requests[0].url).endswith("/models/count-tokens:rawPredict")
    assert upstream.bodies[0]["model"] == "claude-opus-4-5"


@pytest.mark.parametrize("listed", [False, True])
async def test_a_refusal_of_google_has_the_clients_format(listed: bool) -> None:
    detail = {"reason": "ACCESS_TOKEN_EXPIRED"}
    refusal: Any = {
        "error": {
            "code": 401,
            "message": "Request had invalid authentication credentials.",
            "status": "UNAUTHENTICATED",
            "details": [detail],
        }
    }
    body = json.dumps([refusal] if listed else refusal).encode()
    upstream = Upstream(refuses(401, body), answers(MESSAGE))
    answer = await post(vertex_anthropic("p").using(["t1", "t2"]), upstream)
    assert answer.body == MESSAGE  # the next key


# ── Gemini on Vertex AI ──────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
async def test_gemini_on_vertex_has_the_paths_of_a_project(stream: bool) -> None:
    data = b"data: " + GEMINI + b"\r\n\r\n"
    upstream = Upstream(streams(data) if stream else answers(GEMINI))
    provider = vertex("p", "europe-west1").using("ya29.token")
    answer = await asgi.chat(OpenAIShim(provider, transport=upstream.transport), stream=stream)
    assert answer.status == 200
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert str(upstream.requests[0].url) == (
        "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1/"
        f"publishers/google/models/m:{method}"
    )
    assert upstream.requests[0].headers["authorization"] == "Bearer ya29.token"


async def test_a_call_of_geminis_api_passes_through_to_vertex() -> None:
    upstream = Upstream(answers(GEMINI))
    app = GeminiShim(vertex("p").using("t"), transport=upstream.transport)
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "labels": {"a": "b"}}
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    answer = await asgi.request(app, "POST", path, body)
    assert answer.body == GEMINI
    assert upstream.bodies == [body]
    assert upstream.requests[0].url.path.startswith("/v1/projects/p/locations/global/")


@pytest.mark.parametrize("make", [vertex, vertex_anthropic])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "project is required"), (("a/b",), "project is required"), (("p", "Mars!"), "region")],
)
def test_a_project_and_a_region_are_required(make: Any, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(*arguments)


async def test_a_model_name_cannot_leave_its_path() -> None:
    for provider in (vertex_anthropic("p").using("t"), bedrock_anthropic("us-east-1").using(KEY)):
        answer = await post(provider, Upstream(), model="../../other:predict")
        assert answer.status == 400
