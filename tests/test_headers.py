"""A repeated header has the same meaning wherever it is read."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import _asgi
from asgi_aiproxy._headers import combine_values
from asgi_aiproxy.credentials import find_credential
from asgi_aiproxy.passthrough.headers import INTERNAL, read_request_headers, read_response_headers
from asgi_aiproxy.upstream.base import header


@pytest.mark.parametrize(
    ("values", "value"),
    [
        (["a"], "a"),
        (["a", "b"], "a, b"),
        (["b", "a", "b"], "b, a"),
        (["a, b", "b"], "a, b"),
        (["application/json", "application/json"], "application/json"),
        (["", "a"], ", a"),
    ],
)
def test_different_values_are_combined_and_equal_ones_kept_once(
    values: list[str], value: str
) -> None:
    found = values[0]
    for more in values[1:]:
        found = combine_values(found, more)
    assert found == value


VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_shim_proxy_and_transports_read_repeated_headers_alike(values: list[str]) -> None:
    raw = [(b"content-type", value.encode()) for value in values]
    text = [("content-type", value) for value in values]
    scope = {"headers": raw}
    expected = _asgi.header(scope, b"content-type")
    assert _asgi.headers(scope, {b"content-type": "content-type"}) == {"content-type": expected}
    assert read_request_headers(raw, INTERNAL).read == {"content-type": expected}
    assert read_response_headers(text, INTERNAL)[1] == {"content-type": expected}
    assert header(text, "content-type") == expected
    # What passes is what was sent.
    assert read_response_headers(text, INTERNAL)[0] == raw


def test_two_different_credentials_are_both_invalid() -> None:
    one, two = (b"authorization", b"Bearer one"), (b"authorization", b"Bearer two")
    assert find_credential({"headers": [one, one]}) == "one"
    assert find_credential({"headers": [one, two]}) not in ("one", "two", None)
