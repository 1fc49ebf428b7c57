"""The paths that are served; none leaves the base URL."""

from __future__ import annotations

import string
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.errors import APIError, ConfigurationError
from asgi_aiproxy.passthrough.path_patterns import (
    PathPatterns,
    relative_to_base,
    validate_path,
    validate_query,
)
from asgi_aiproxy.providers.path_profiles import (
    ANTHROPIC,
    AZURE,
    GEMINI,
    OLLAMA,
    OPENAI,
    PathProfile,
)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/a/b", "/a%2Fb", "/.well-known/x", "/a..b", "/...", "/a%20", "/%25", "/~a/b;v=1"],
)
def test_an_ordinary_path_is_unchanged(path: str) -> None:
    assert validate_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/../a",
        "/a/..",
        "/a/../b",
        "/./a",
        "/a/.",
        "/%2e%2e/a",
        "/%2E%2e",
        "/.%2e/a",
        "/%252e%252e/a",
        "/%25252e%25252e/a",
        "/a%2f..%2fb",
        "/a/..%5cb",
        "/a\\..\\b",
        "/a/..;x=1/b",
        "/a/..%3bx/b",
        "/a%00",
        "/a%0ab",
        "/a\tb",
        "/a b",
        "/a#b",
        "/%2525252525252525",
    ],
)
def test_a_path_that_a_server_might_read_as_outside_is_refused(path: str) -> None:
    with pytest.raises(APIError) as caught:
        validate_path(path)
    assert caught.value.status == 400


@settings(max_examples=500)
@given(st.lists(st.sampled_from(["..", ".", "a", "%2e", "%2E%2e", "%2f", "%5c", ";", "%25", "/"])))
def test_accepted_paths_stay_below_the_base_however_they_are_decoded(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    try:
        path = validate_path(path)
    except APIError:
        return
    for _ in range(6):
        assert not {"..", "."} & {part.partition(";")[0] for part in path.split("/")}
        path = unquote(path).replace("\\", "/")


@given(st.text(string.printable + "äß€\u0080", max_size=30))
def test_bytes_beyond_ascii_are_sent_encoded(text: str) -> None:
    raw = quote(text).encode().replace(b"%C3", b"\xc3").decode("latin-1")
    try:
        path = validate_path("/" + raw)
    except APIError:
        return
    assert path.isascii()
    assert unquote(path, "latin-1") == unquote("/" + raw, "latin-1")


@pytest.mark.parametrize("query", [b"a b", b"a\r\nb", b"a\x00", b"a#b"])
def test_an_invalid_query_is_refused(query: bytes) -> None:
    with pytest.raises(APIError):
        validate_query(query)


def test_a_query_stays_as_it_is() -> None:
    assert validate_query(b"a=1&a=%2F&b=..%2f../x?y") == "a=1&a=%2F&b=..%2f../x?y"
    assert validate_query(b"a=\xe9") == "a=%E9"


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("https://api.openai.com/v1", "/v1/files", "/files"),
        ("https://api.openai.com/v1", "/files", "/files"),
        ("https://api.openai.com/v1", "/v1", ""),
        ("https://api.openai.com/v1/", "/v1/files", "/files"),
        ("https://api.openai.com/v1", "/v1beta/files", "/v1beta/files"),
        ("https://api.openai.com/v1", "/v1/v1/files", "/v1/files"),
        ("https://api.groq.com/openai/v1", "/openai/v1/models", "/models"),
        ("https://api.groq.com/openai/v1", "/v1/models", "/models"),
        ("https://api.groq.com/openai/v1", "/models", "/models"),
        ("https://api.anthropic.com", "/v1/messages", "/v1/messages"),
        ("https://api.anthropic.com", "//v1", "//v1"),
    ],
)
def test_clients_may_begin_at_the_root_or_at_the_base(base: str, path: str, expected: str) -> None:
    assert relative_to_base(base, path) == expected


OPEN = [
    (OPENAI, "POST", "/chat/completions"),
    (OPENAI, "GET", "/chat/completions/id/messages"),
    (OPENAI, "GET", "/models"),
    (OPENAI, "HEAD", "/models/gpt-4o"),
    (OPENAI, "POST", "/files"),
    (OPENAI, "DELETE", "/files/file-1"),
    (OPENAI, "POST", "/v1/batches"),
    (OPENAI, "GET", "/realtime"),
    (AZURE, "POST", "/openai/deployments/gpt/chat/completions"),
    (AZURE, "POST", "/openai/v1/responses"),
    (ANTHROPIC, "POST", "/v1/messages"),
    (ANTHROPIC, "GET", "/v1/messages/batches/b/results"),
    (ANTHROPIC, "POST", "/v1/files"),
    (GEMINI, "POST", "/v1beta/models/gemini:generateContent"),
    (GEMINI, "POST", "/upload/v1beta/files"),
    (GEMINI, "GET", "/v1alpha/cachedContents/1"),
    (OLLAMA, "POST", "/api/chat"),
]
CLOSED = [
    (OPENAI, "GET", "/organization/admin_api_keys"),
    (OPENAI, "POST", "/organization/projects"),
    (OPENAI, "GET", "/organizations"),
    (OPENAI, "POST", "/projects/p/api_keys"),
    (OPENAI, "GET", "/dashboard/billing/usage"),
    (OPENAI, "DELETE", "/models/ft:mine"),
    (OPENAI, "POST", "/realtime/client_secrets"),
    (OPENAI, "POST", "/realtime/sessions"),
    (OPENAI, "GET", "/openai/v1/models"),
    (AZURE, "GET", "/openai/v1/organization/x"),
    (OPENAI, "GET", "/"),
    (OPENAI, "GET", ""),
    (OPENAI, "GET", "//files"),
    (OPENAI, "GET", "/filesystem"),
    (OPENAI, "GET", "/FILES"),
    (OPENAI, "GET", "/%66iles"),
    (AZURE, "PUT", "/openai/deployments/gpt"),
    (ANTHROPIC, "GET", "/v1/organizations/api_keys"),
    (ANTHROPIC, "POST", "/v1/organizations/invites"),
    (ANTHROPIC, "DELETE", "/v1/models/claude"),
    (GEMINI, "POST", "/v1alpha/auth_tokens"),
    (GEMINI, "POST", "/v1alpha/authTokens"),
    (GEMINI, "GET", "/v1beta/projects/p"),
    (OLLAMA, "POST", "/api/pull"),
    (OLLAMA, "DELETE", "/api/delete"),
    (OLLAMA, "POST", "/api/create"),
]


@pytest.mark.parametrize(("surface", "method", "path"), OPEN)
def test_inference_and_its_resources_are_served(
    surface: PathProfile, method: str, path: str
) -> None:
    assert PathPatterns(surface.open).match_name(method, path)


@pytest.mark.parametrize(("surface", "method", "path"), CLOSED)
def test_the_administration_of_the_account_is_not_served(
    surface: PathProfile, method: str, path: str
) -> None:
    assert PathPatterns(surface.open).match_name(method, path) is None


def test_patterns_match_as_documented() -> None:
    opened = PathPatterns(["/a", "/b/**", "GET /c", "/d/*/e", "POST /f.g/**"])
    for method, path, name in [
        ("GET", "/a", "a"),
        ("GET", "/a/x", None),
        ("PUT", "/b", "b"),
        ("PUT", "/b/x/y", "b"),
        ("PUT", "/bx", None),
        ("GET", "/c", "c"),
        ("HEAD", "/c", "c"),
        ("POST", "/c", None),
        ("GET", "/d/1/e", "d/*/e"),
        ("GET", "/d/1/2/e", None),
        ("POST", "/f.g", "f.g"),
        ("POST", "/fxg", None),
    ]:
        assert opened.match_name(method, path) == name, (method, path)
    assert PathPatterns([]).match_name("GET", "/a") is None


@pytest.mark.parametrize("pattern", ["files", "get /files", "", "GET files"])
def test_an_invalid_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid pattern"):
        PathPatterns([pattern])


def test_the_base_urls_of_all_providers_match_their_path_patterns() -> None:
    from asgi_aiproxy.passthrough.target import make_target
    from asgi_aiproxy.providers.catalog import ROWS

    for row in ROWS:
        to = make_target(row, None)
        base = urlsplit(row.base_url).path.rstrip("/")
        if row.dialect.name == "openai_chat":
            assert to.operation("POST", to.local(f"{base}/chat/completions")) == "chat/completions"
        with pytest.raises(APIError) as caught:
            to.operation("GET", to.local(f"{base}/organization/admin_api_keys"))
        assert caught.value.status == 404
