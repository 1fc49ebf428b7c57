"""Providers that want requests signed with their bodies, as Amazon Web Services do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError, PassthroughProxy
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.providers import SigV4
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.upstream import Outgoing
from tests import asgi
from tests.passthrough.door import Door, behind, converse
from tests.passthrough.test_conformance import ask, chunks
from tests.upstreams import Upstream, answers
from tests.wire import Line

pytestmark = pytest.mark.anyio

# The credentials and the moment of Amazon's own examples.
KEY = "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MOMENT = 1440938160.0  # 20150830T123600Z
INVOKE = "/model/anthropic.claude-3:0/invoke"
CALL = b'{"max_tokens": 5, "messages": []}'


def signature(request: Outgoing, key: str = KEY, service: str = "service") -> str:
    signed = SigV4("us-east-1", service, clock=lambda: MOMENT)(request, key)
    (found,) = [value for name, value in signed.headers if name == "authorization"]
    return found.rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ],
    ids=["get-vanilla", "get-vanilla-query-order-key-case"],
)
def test_the_examples_that_amazon_gives(url: str, expected: str) -> None:
    request = Outgoing(method="GET", url=f"https://example.amazonaws.com/{url}", headers=[])
    assert signature(request) == expected


@pytest.mark.parametrize(
    ("path", "session", "expected"),
    [
        (INVOKE, "", "cb12f7c3847b61f0dc86755536d93421d1c72b1a7d97f854cf96b8b9183f1089"),
        (
            INVOKE.replace(":", "%3A"),
            ":token==",
            "d1693658dc780f8e049dacdd3ec9828bc58241423b63e909fb2e49c54388efdc",
        ),
    ],
    ids=["body", "encoded path, session token"],
)
def test_bodies_paths_and_session_tokens(path: str, session: str, expected: str) -> None:
    """(Expected is what Amazon's own library, botocore, makes of the same.)"""
    request = Outgoing(
        method="POST",
        url=f"https://example.amazonaws.com{path}",
        headers=[("content-type", "application/json"), ("x-other", "not signed")],
        body=b'{"a": 1}',
    )
    assert signature(request, KEY + session) == expected


def test_what_can_not_be_signed_is_told() -> None:
    async def body() -> Any:
        yield b"x"

    request = Outgoing(method="POST", url="https://a.example/", headers=[], body=body())
    with pytest.raises(APIError, match="streams"):
        signature(request)
    for key in ("", "AKID", "AKID:", ":secret"):
        with pytest.raises(APIError, match="is not '<access key id>:"):
            signature(Outgoing(method="GET", url="https://a.example/", headers=[]), key)
    with pytest.raises(ConfigurationError, match="region"):
        SigV4("", "bedrock")
    assert repr(SigV4("eu-west-1", "bedrock")) == "SigV4('eu-west-1', 'bedrock')"


# ── through the proxy ────────────────────────────────────────────────────────


BEDROCK = Provider(
    name="bedrock",
    dialect=ANTHROPIC_MESSAGES,
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
    auth=SigV4("us-east-1", "bedrock", clock=lambda: MOMENT),
)
OPTIONS: Any = {"paths": ["POST /model/*/invoke"], "max_replay": 1000}


async def echo(line: Line) -> None:
    request = await line.request()
    await line.answer(json.dumps(dict(request.headers)).encode())


@pytest.mark.parametrize("framed", ["length", "chunks"])
async def test_a_body_is_held_and_signed_however_it_comes(door: Door, framed: str) -> None:
    async with behind(door, echo, BEDROCK, keys=KEY, **OPTIONS) as at:
        caller = await at.caller()
        theirs = ["Content-Type: application/json", "X-Amz-Date: 20200101T000000Z"]
        theirs += ["X-Amz-Security-Token: theirs", "Authorization: AWS4-HMAC-SHA256 Credential=x"]
        if framed == "length":
            data = ask(f"POST {INVOKE}", *theirs, body=CALL)
        else:
            head = ask(f"POST {INVOKE}", *theirs, "Transfer-Encoding: chunked")
            data = head + chunks(CALL[:10], CALL[10:])
        got = await converse(caller, data, "POST")
        assert got.got.status == 200
        sent = at.request
        assert sent.body == CALL
        assert sent.header("transfer-encoding") is None
        assert sent.all("x-amz-date") == ["20150830T123600Z"]
        assert sent.all("x-amz-security-token") == []
        (told,) = sent.all("authorization")
        url = f"http://{sent.header('host')}{INVOKE}"
        typed = [("content-type", "application/json")]
        expected = Outgoing(method="POST", url=url, headers=typed, body=CALL)
        assert told.rpartition("Signature=")[2] == signature(expected, service="bedrock")


@pytest.mark.parametrize("framed", ["length", "chunks"])
async def test_a_body_that_is_too_long_to_be_held_is_refused(door: Door, framed: str) -> None:
    async with behind(door, echo, BEDROCK, keys=KEY, **OPTIONS) as at:
        caller = await at.caller()
        body = b"x" * 1001
        if framed == "length":
            data = ask(f"POST {INVOKE}", body=body)
        else:
            data = ask(f"POST {INVOKE}", "Transfer-Encoding: chunked") + chunks(body[:500], body)
        got = await converse(caller, data, "POST")
        assert got.got.status == 413
        message = got.got.json["error"]["message"]
        assert "larger than 1000 bytes" in message
        assert "signed" in message
        assert at.wire.lines == []


async def test_a_lower_limit_of_ones_own_holds() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy(
        BEDROCK.using(KEY), transport=upstream.transport, max_body=10, **OPTIONS
    )
    answer = await asgi.request(proxy, "POST", INVOKE, b"x" * 11)
    assert answer.status == 413
    assert "larger than 10 bytes" in answer.json["error"]["message"]
    assert (await asgi.request(proxy, "POST", INVOKE, b"x" * 10)).status == 200
