from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy import _json


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":[1,2.5,true,null,"x"]}', {"a": [1, 2.5, True, None, "x"]}),
        ('"é🚀"', "é🚀"),
        (b"  1 ", 1),
        # what msgspec alone would refuse, and models send
        (b'"half \\ud83d"', "half \ud83d"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ud83d😀"),
        ('"raw \ud83d"', "raw \ud83d"),
        (b'{"a":Infinity}', {"a": math.inf}),
        (b"1e400", math.inf),
        (b"1" * 40, int("1" * 40)),
    ],
)
def test_all_json_that_python_accepts_is_read(data: bytes | str, value: Any) -> None:
    assert _json.loads(data) == value


def test_not_a_number_is_read() -> None:
    assert math.isnan(_json.loads(b"[NaN]")[0])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Expecting value"),
        (b'{"a":1,}', "Expecting property name|trailing comma"),
        (b"{'a':1}", "Expecting property name"),
        (b'{"a":1} x', "Extra data"),
        (b'"\xff"', "not valid UTF-8"),
        (b"\xff", "not valid UTF-8"),
        (b"[" * 10**6 + b"]" * 10**6, "nested too deeply"),
        (b"1" * 5_000, "limit"),
    ],
)
def test_invalid_json_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(_json.NotJSONError, match=why):
        _json.loads(data)


class Point(msgspec.Struct):
    x: int
    name: str = ""


point = msgspec.json.Decoder(Point)


def test_typed_decoding_accepts_lone_surrogates_too() -> None:
    assert _json.typed(point, b'{"x":1,"name":"a"}') == Point(1, "a")
    assert _json.typed(point, b'{"x":1,"name":"\\ud83d"}') == Point(1, "\ud83d")


def test_typed_decoding_distinguishes_a_wrong_type_from_invalid_json() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"at `\$\.x`"):
        _json.typed(point, b'{"x":"1"}')
    with pytest.raises(msgspec.ValidationError, match=r"at `\$\.x`"):
        _json.typed(point, b'{"x":"1","name":"\\ud83d"}')
    with pytest.raises(_json.NotJSONError):
        _json.typed(point, b'{"x":1')


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'.encode()),
        (Point(1, "a"), b'{"x":1,"name":"a"}'),
        ("half \ud83d", b'"half \\ud83d"'),
        ({"\ud83d": Point(1, "\ud83d")}, b'{"\\ud83d":{"x":1,"name":"\\ud83d"}}'),
        ({"r": msgspec.Raw(b'{"b": 1}')}, b'{"r":{"b": 1}}'),
        (float("nan"), b"null"),
        (["\ud83d", math.nan, (math.inf, 1.5)], b'["\\ud83d",null,[null,1.5]]'),
        (2**70, str(2**70).encode()),
    ],
)
def test_encoded_values_can_be_decoded_again(value: Any, data: bytes) -> None:
    assert _json.dumps(value) == data
    json.loads(data)


@given(st.text(st.characters(codec=None) | st.sampled_from('\ud83d\udc4b"\\\0\u2028')))
def test_quoted_text_is_read_again(text: str) -> None:
    quoted = _json.quote(text)
    assert quoted == _json.dumps(text)
    # Two halves that stand side by side become whole on the way.
    assert json.loads(quoted) == text.encode("utf-16", "surrogatepass").decode(
        "utf-16", "surrogatepass"
    )
