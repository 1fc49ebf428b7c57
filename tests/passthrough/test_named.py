"""The models that requests name in their bodies, however these come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.passthrough.named import ModelMember, finder_for, named_in

LURE = {"model": "lure", "x": [{"model": "lure"}, '"model": "lure"', "\\"], "y": {"model": 5}}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10**6])
@pytest.mark.parametrize(
    ("value", "model"),
    [
        ({"model": "gpt-x", "messages": [LURE]}, "gpt-x"),
        ({"messages": [LURE, 'a "model": "lure" {'], "model": "gpt-x"}, "gpt-x"),
        ({"a\\": '\\"', "é": {}, "model": "gpt-é", "z": [1, None]}, "gpt-é"),
        ({"model": "models/gemini-x"}, "gemini-x"),
        ({"model": None, "input": LURE}, None),
        ({"models": "x", "x": "model"}, None),
        ([LURE, "model", "x"], None),
        ("model", None),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_the_model_is_the_member_of_the_body_itself(
    size: int, value: Any, model: str | None, indent: int | None
) -> None:
    body = json.dumps(value, indent=indent).encode()
    finder = ModelMember()
    for at in range(0, len(body), size):
        finder.feed(body[at : at + size])
    assert finder.model == model
    assert named_in(body, "application/json").model == (model or "")


@pytest.mark.parametrize("second", ['"model"', '"mod\\u0065l"', '"model" '])
def test_a_second_model_is_refused_wherever_it_comes(second: str) -> None:
    finder = ModelMember()
    finder.feed(b'{"model": "cheap", "x": "' + b"A" * 10**5 + b'"')
    assert finder.model == "cheap"
    with pytest.raises(APIError, match="twice"):
        finder.feed(b", " + second.encode() + b': "dear"}')


def test_the_calls_of_a_batch_are_named() -> None:
    requests = [{"custom_id": "1", "params": {"model": m}} for m in ("a", "b", "a")]
    found = named_in(json.dumps({"requests": requests, "model": "c"}).encode(), "application/json")
    assert (found.model, set(found.inner)) == ("c", {"a", "b"})
    found = named_in(b'{"requests": [{}]}', "application/json")
    assert found.inner == ("",)


def test_only_what_can_be_read_is_searched() -> None:
    assert finder_for("text/plain") is None
    assert finder_for("multipart/form-data") is None
    assert finder_for("multipart/form-data; boundary=b") is not None
    assert named_in(b'{"model": "m"}', "text/plain").model == ""


def test_a_form_is_no_json_whatever_its_boundary_is_called() -> None:
    form = b'{"model": "cheap"}\r\n--json\r\nContent-Disposition: form-data; name=model\r\n\r\ndear'
    kind = "multipart/form-data; boundary=json"
    finder = finder_for(kind)
    assert finder is not None
    finder.feed(form + b"\r\n--json--")
    assert finder.model == "dear"
    assert named_in(form + b"\r\n--json--", kind).model == "dear"
