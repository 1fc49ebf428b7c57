"""Providers whose requests are signed including their bodies, such as Amazon Web Services."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError, PassthroughProxy
from asgi_aiproxy.dialects import ANTHROPIC_MESSAGES
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.providers import SigV4
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.upstream import UpstreamRequest
from tests.passthrough.test_conformance import ask, chunks
from tests.support import asgi_client as asgi
from tests.support.passthrough_upstream import Frontend, behind, converse
from tests.support.scripted_upstream import Upstream, answers
from tests.support.socket_server import Line

pytestmark = pytest.mark.anyio

# The credentials and the moment of Amazon's own examples.
KEY = "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MOMENT = 1440938160.0  # 20150830T123600Z
INVOKE = "/model/anthropic.claude-3:0/invoke"
CALL = b'{"max_tokens": 5, "messages": []}'


def signature(request: UpstreamRequest, key: str = KEY, service: str = "service") -> str:
    signed = SigV4("us-east-1", service, clock=lambda: MOMENT)(request, key)
    (found,) = [value for name, value in signed.headers if name == "authorization"]
    return found.rpartition("Signature=")[2]


VANILLA = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
EXAMPLES = {
    "get-vanilla": ("/", VANILLA),
    "get-vanilla-query-order-key-case": (
        "/?Param2=value2&Param1=value1",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-vanilla-utf8-query": (
        "/?ሴ=bar",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    "get-utf8": ("/ሴ", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    "get-unreserved": (
        "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    "get-slash": ("//", VANILLA),
    "get-slash-dot-slash": ("/./", VANILLA),
    "get-relative": ("/example/..", VANILLA),
    "get-relative-relative": ("/example1/example2/../..", VANILLA),
    "get-slashes": (
        "//example//",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    "get-slash-pointless-dot": (
        "/./example",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    "get-space": (
        "/example space/",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_amazons_published_examples_are_signed_correctly(name: str) -> None:
    path, expected = EXAMPLES[name]
    request = UpstreamRequest(method="GET", url=f"https://example.amazonaws.com{path}", headers=[])
    assert signature(request) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            [("x-amz-a", " a   b  c ")],
            "9ceac193b0aaaba1038033083f95956a98025b5a0799e7ea905947b82b116b70",
        ),
        (
            [("x-amz-a", '"a   b"'), ("x-amz-a", "v4"), ("x-amz-b", "z\ty")],
            "f13e5edb45d00fa1477dbfd97f794a55ea57077c7182190f197b5db3aad1a53f",
        ),
        (
            [("content-type", "text/plain;  charset=x")],
            "f543c9f45ef0dcbc19164c8f672689133a66766fa116546f414dc73661d436c3",
        ),
    ],
    ids=["spaces", "repeated, quoted, tab", "content-type"],
)
def test_superfluous_spaces_and_repeated_headers_are_signed(
    headers: list[tuple[str, str]], expected: str
) -> None:
    """(The expected values are those of Amazon's own library, botocore.)"""
    url = "https://example.amazonaws.com/x"
    assert (
        signature(UpstreamRequest(method="POST", url=url, headers=headers, body=b"{}")) == expected
    )


@pytest.mark.parametrize(
    ("query", "sent", "expected"),
    [
        (
            "a=b+c",
            "a=b%20c",
            "2e33241dd0ebf9f6efed1ccaa6a9b4cf90da6f22f2ba3ce40589aa681b76412c",
        ),
        ("+=x&a", "%20=x&a", "6904a0272afa22828a140bfe85042ce61183ecdf13e9e08148a4daa9a5ba4b4b"),
        ("a=%2B", "a=%2B", None),
    ],
)
def test_a_plus_sign_in_a_query_is_sent_as_an_encoded_space(
    query: str, sent: str, expected: str | None
) -> None:
    """Amazon signs it as a space (post-vanilla-query-nonunreserved), so it is sent as one."""
    request = UpstreamRequest(
        method="GET", url=f"https://example.amazonaws.com/?{query}", headers=[]
    )
    made = SigV4("us-east-1", "service", clock=lambda: MOMENT)(request, KEY)
    assert made.url == f"https://example.amazonaws.com/?{sent}"
    plain = UpstreamRequest(method="GET", url=made.url, headers=[])
    assert signature(request) == signature(plain)
    assert expected in (None, signature(request))


def test_header_values_are_signed_as_the_bytes_that_are_sent() -> None:
    url = "https://example.amazonaws.com/x"
    latin = UpstreamRequest(method="GET", url=url, headers=[("x-amz-a", "\xc3\xa0")])
    text = UpstreamRequest(method="GET", url=url, headers=[("x-amz-a", "\u20ac")])
    as_bytes = UpstreamRequest(method="GET", url=url, headers=[("x-amz-a", "\xe2\x82\xac")])
    assert signature(latin) != signature(text)
    assert signature(text) == signature(as_bytes)  # one that Latin-1 cannot hold goes in UTF-8


@pytest.mark.parametrize("service", ["s3", "S3", "s3express", "s3-object-lambda"])
def test_s3_is_refused_because_its_requests_are_signed_differently(service: str) -> None:
    with pytest.raises(ConfigurationError, match="does not support S3"):
        SigV4("eu-west-1", service)


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
def test_bodies_paths_and_session_tokens_are_signed(path: str, session: str, expected: str) -> None:
    """(The expected values are those of Amazon's own library, botocore.)"""
    request = UpstreamRequest(
        method="POST",
        url=f"https://example.amazonaws.com{path}",
        headers=[("content-type", "application/json"), ("x-other", "not signed")],
        body=b'{"a": 1}',
    )
    assert signature(request, KEY + session) == expected


def test_requests_that_cannot_be_signed_are_refused_with_the_reason() -> None:
    async def body() -> Any:
        yield b"x"

    request = UpstreamRequest(method="POST", url="https://a.example/", headers=[], body=body())
    with pytest.raises(APIError, match="streamed body"):
        signature(request)
    for key in ("", "AKID", "AKID:", ":secret"):
        with pytest.raises(APIError, match="must be '<access key id>:"):
            signature(UpstreamRequest(method="GET", url="https://a.example/", headers=[]), key)
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
async def test_a_body_is_held_and_signed_however_it_arrives(
    frontend: Frontend, framed: str
) -> None:
    async with behind(frontend, echo, BEDROCK, keys=KEY, **OPTIONS) as at:
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
        (reported,) = sent.all("authorization")
        url = f"http://{sent.header('host')}{INVOKE}"
        typed = [("content-type", "application/json")]
        expected = UpstreamRequest(method="POST", url=url, headers=typed, body=CALL)
        assert reported.rpartition("Signature=")[2] == signature(expected, service="bedrock")


@pytest.mark.parametrize("framed", ["length", "chunks"])
async def test_a_body_that_is_too_long_to_be_signed_is_refused(
    frontend: Frontend, framed: str
) -> None:
    async with behind(frontend, echo, BEDROCK, keys=KEY, **OPTIONS) as at:
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


async def test_a_lower_configured_limit_applies() -> None:
    upstream = Upstream(answers())
    proxy = PassthroughProxy(
        BEDROCK.using(KEY), transport=upstream.transport, max_body=10, **OPTIONS
    )
    answer = await asgi.request(proxy, "POST", INVOKE, b"x" * 11)
    assert answer.status == 413
    assert "larger than 10 bytes" in answer.json["error"]["message"]
    assert (await asgi.request(proxy, "POST", INVOKE, b"x" * 10)).status == 200
