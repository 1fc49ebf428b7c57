"""Amazon Bedrock as a provider: hosts, API keys, signatures, refusals, the list of models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from asgi_aiproxy import ConfigurationError, OpenAIShim
from asgi_aiproxy.keys import Key
from asgi_aiproxy.providers import BedrockAuth, bedrock
from asgi_aiproxy.upstream import UpstreamRequest
from tests.support import asgi_client as asgi
from tests.support.event_stream import event
from tests.support.scripted_upstream import Step, Upstream, answers, refuses

pytestmark = pytest.mark.anyio

KEY = "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ANSWER = json.dumps(
    {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
        "metrics": {"latencyMs": 1},
    }
).encode()
STREAM = (
    event("messageStart", {"role": "assistant"})
    + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}})
    + event("contentBlockStop", {"contentBlockIndex": 0})
    + event("messageStop", {"stopReason": "end_turn"})
    + event("metadata", {"usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}})
)
ARN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"region": "eu-west-1"}, "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ({"region": "cn-north-1"}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ({"region": "us-gov-west-1"}, "https://bedrock-runtime.us-gov-west-1.amazonaws.com"),
        (
            {"base_url": "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com"},
            "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
        ),
        ({"region": "us-east-1", "base_url": "http://proxy.example/b"}, "http://proxy.example/b"),
    ],
)
def test_a_region_has_an_address(options: dict[str, str], url: str) -> None:
    assert bedrock(**options).base_url == url


@pytest.mark.parametrize("options", [{}, {"base_url": "https://a.example"}, {"region": "moon"}])
def test_a_region_is_required(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="region is required, such as 'us-east-1'"):
        bedrock(**options)


async def test_an_api_key_is_a_bearer_token() -> None:
    upstream = Upstream(answers(ANSWER))
    app = OpenAIShim(bedrock("eu-west-1").using("bedrock-api-key-x"), transport=upstream.transport)
    answer = await asgi.chat(app, model=ARN)
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    assert answer.json["model"] == ARN
    (request,) = upstream.requests
    assert request.headers["authorization"] == "Bearer bedrock-api-key-x"
    assert str(request.url) == (
        "https://bedrock-runtime.eu-west-1.amazonaws.com/model/arn%3Aaws%3Abedrock%3Aeu-west-1"
        "%3A123456789012%3Aapplication-inference-profile%2Fabc/converse"
    )


@pytest.mark.parametrize("session", ["", "FwoGZXIvYXdzE//token=="])
@pytest.mark.parametrize(
    "path", ["/model/amazon.nova-lite-v1%3A0/converse", "/foundation-models?byOutputModality=TEXT"]
)
def test_a_signature_is_that_of_amazons_own_sdk(path: str, session: str) -> None:
    url = "https://bedrock-runtime.eu-west-1.amazonaws.com" + path
    body = b'{"messages":[]}' if "model/" in path else None
    method = "POST" if body else "GET"
    request = UpstreamRequest(
        method=method, url=url, headers=[("content-type", "application/json")], body=body
    )
    secret = f"{KEY}:{session}" if session else KEY
    # The region in the host counts, whatever the provider's is.
    signed = dict(BedrockAuth("us-east-1")(request, secret).headers)
    theirs = AWSRequest(method, url, {"content-type": "application/json"}, body)
    key_id, _, key = KEY.partition(":")
    auth = SigV4Auth(Credentials(key_id, key, session or None), "bedrock", "eu-west-1")
    theirs.context["timestamp"] = signed["x-amz-date"]
    theirs.headers["X-Amz-Date"] = signed["x-amz-date"]
    if session:
        theirs.headers["X-Amz-Security-Token"] = session
    text = auth.string_to_sign(theirs, auth.canonical_request(theirs))
    assert signed["authorization"].endswith("Signature=" + auth.signature(text, theirs))
    assert signed.get("x-amz-security-token", "") == session


async def test_a_binary_stream_becomes_the_clients() -> None:
    upstream = Upstream(
        Step([STREAM], headers={"content-type": "application/vnd.amazon.eventstream"})
    )
    app = OpenAIShim(bedrock("eu-west-1").using(KEY), transport=upstream.transport)
    answer = await asgi.chat(app, stream=True)
    assert b"[DONE]" in answer.body
    assert b'"content":"Hello"' in answer.body
    assert str(upstream.requests[0].url).endswith("/model/m/converse-stream")


@pytest.mark.parametrize(
    ("name", "status", "second"),
    [("UnrecognizedClientException", 403, 200), ("ThrottlingException", 429, 200),
     ("ValidationException", 400, 400)],
)  # fmt: skip
async def test_a_refusal_of_a_key_costs_the_next_key(name: str, status: int, second: int) -> None:
    kind = f"{name}:http://internal.amazon.com/"
    refusal = refuses(status, b'{"message":"No."}', x_amzn_errortype=kind)
    upstream = Upstream(refusal, answers(ANSWER))
    provider = bedrock("eu-west-1").using([KEY, "other:secret"])
    answer = await asgi.chat(OpenAIShim(provider, transport=upstream.transport))
    assert answer.status == second


async def test_models_are_listed_by_the_control_plane() -> None:
    upstream = Upstream(answers(b'{"modelSummaries":[{"modelId":"amazon.nova-lite-v1:0"}]}'))
    app = OpenAIShim(bedrock("eu-west-1").using(KEY), transport=upstream.transport)
    listed: Any = (await asgi.request(app, "GET", "/v1/models")).json
    assert [model["id"] for model in listed["data"]] == ["amazon.nova-lite-v1:0"]
    assert str(upstream.requests[0].url) == (
        "https://bedrock.eu-west-1.amazonaws.com/foundation-models?byOutputModality=TEXT"
    )


async def test_a_key_may_belong_to_another_region() -> None:
    upstream = Upstream(answers(ANSWER))
    other = "https://bedrock-runtime.us-west-2.amazonaws.com"
    provider = bedrock("eu-west-1").using(Key(KEY, base_url=other))
    await asgi.chat(OpenAIShim(provider, transport=upstream.transport))
    (request,) = upstream.requests
    assert request.url.host == "bedrock-runtime.us-west-2.amazonaws.com"
    assert "/us-west-2/bedrock/aws4_request" in request.headers["authorization"]
