"""JSON bodies: the models they name, and that other parsers read accepted bodies in the
same way.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.inspection import CHECKED_MEMBERS, check_model, folded, inspect
from asgi_aiproxy.passthrough.inspection import peek_model
from tests.support import body_readers as readers

DEAR = {"model": "dear"}


def names(body: Any) -> set[str]:
    """All models that a body names."""
    found = inspect(body if isinstance(body, bytes) else json.dumps(body).encode())
    return {*found.beside("")}


@pytest.mark.parametrize(
    ("body", "models"),
    [
        ({"model": "cheap", "messages": [DEAR, '"model":']}, {"cheap"}),
        ({"model": "models/gemini-x"}, {"gemini-x"}),
        ({"model": None}, set()),
        ({"model": "cheap", "models": ["a", "b"]}, {"cheap", "a", "b"}),
        ({"model": "cheap", "fallbacks": ["a", {"model": "b", "why": "x"}]}, {"cheap", "a", "b"}),
        ({"fallbacks": [{"cheap": ["a"]}]}, {"a"}),
        ({"preset": "p", "agent": "q", "model_id": "r", "deploymentModel": "s"}, {*"pqrs"}),
        ({"deployment_id": "a", "parameters": DEAR, "x": {"adapter_id": "b"}}, {*"ab"}),
        (
            {"data_sources": [{"parameters": {"embedding_dependency": {"deployment_name": "a"}}}]},
            {"a"},
        ),
        ({"lora_path": ["a", None, "b"], "deployment": "c"}, {*"abc"}),
        ({"plugins": [{"id": "router", "allowed_models": ["a"]}, {"judge": DEAR}]}, {"a", "dear"}),
        ({"tools": [{"type": "advisor", "model": "a"}, {"x": [[{"y": DEAR}]]}]}, {"a", "dear"}),
        ({"session": {"audio": {"input": {"transcription": DEAR}}, "model": "a"}}, {"a", "dear"}),
        ({"input_audio_transcription": DEAR}, {"dear"}),
        ({"data_source": DEAR, "testing_criteria": [DEAR]}, {"dear"}),
        ({"batch": {"input_config": {"requests": {"requests": [{"request": DEAR}]}}}}, {"dear"}),
        ({"requests": [DEAR, {"model": "models/b"}]}, {"dear", "b"}),
        # What a caller says to a model, or of its own data, names none.
        ({"tools": [{"function": {"parameters": {"properties": DEAR}}}]}, set()),
        ({"tools": [{"name": "x", "input_schema": {"properties": DEAR}}]}, set()),
        ({"contents": [{"parts": [{"functionCall": {"args": DEAR}}]}], "metadata": DEAR}, set()),
        ({"input": [{"content": DEAR}], "response_format": {"json_schema": DEAR}}, set()),
    ],
)
def test_all_models_are_found_wherever_vendors_look(body: Any, models: set[str]) -> None:
    assert names(body) == models


def test_each_call_of_a_batch_is_inspected() -> None:
    params = [{"custom_id": "1", "params": {"model": m, "messages": [DEAR]}} for m in "aab"]
    found = inspect(json.dumps({"requests": [*params, {"params": {}}], "model": "c"}).encode())
    assert (found.model, set(found.calls)) == ("c", {"a", "b", ""})
    assert inspect(b'{"requests": {"requests": []}}').calls == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"model":"cheap","model":"dear"}', "model"),
        ('{"model":"cheap","model":"cheap"}', "model"),
        ('{"x":1, "model" : "cheap" ,\n"mo\\u0064el":"dear"}', "model"),
        ('{"temperature":1,"model":"cheap","temperature":2}', "temperature"),
        ('{"model":"cheap","MODEL":"dear"}', "model"),
        ('{"Model":"dear"}', "model"),
        ('{"model":"cheap","model\\u0000":"dear"}', "model"),
        ('{"model":"cheap"," model":"dear"}', "model"),
        ('{"model":"cheap","\ufeffmodel":"dear"}', "model"),
        ('{"model":"cheap","\u017ftream":true}', "stream"),
        ('{"model":"cheap","max_to\u212aens":9}', "max_tokens"),
        ('{"model":"cheap","max_to\\u212aens":9}', "max_tokens"),
        ('{"model":"cheap","Max_Completion_Tokens":9}', "max_completion_tokens"),
        ('{"generationconfig":{}}', "generationConfig"),
        ('{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":9}}', "maxOutputTokens"),
        ('{"generationConfig":{"MaxOutputTokens":9}}', "maxOutputTokens"),
        ('{"options":{"num_predict":1,"NUM_PREDICT":9}}', "num_predict"),
        ('{"requests":[{"params":{"model":"cheap","model":"dear"}}]}', "model"),
        ('{"requests":[{"params":{"model":"cheap"},"params":{"model":"dear"}}]}', "params"),
        ('{"requests":[{"params":{"Model":"dear"}}]}', "model"),
        ('{"tools":[{"model":"cheap","model":"dear"}]}', "model"),
        ('{"session":{"mode\\u006c":"cheap","model":"dear"}}', "model"),
        ('{"model":["cheap"]}', "model"),
        ('{"model":{"id":"cheap"}}', "model"),
        ('{"model":"../x"}', "model"),
        ('{"model":" cheap"}', "model"),
    ],
)
def test_ambiguous_bodies_are_refused_with_the_name_of_the_member(body: str, param: str) -> None:
    with pytest.raises(APIError) as caught:
        inspect(body.encode())
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b'"model"', b'{"model":"cheap"', b'{"model":"cheap"} x',
        b'{"model":"cheap"}{"model":"dear"}', b'\xef\xbb\xbf{"model":"cheap"}',
        '{"model":"cheap"}'.encode("utf-16"), '{"model":"cheap"}'.encode("utf-16-le"),
        '{"model":"cheap"}'.encode("utf-32"), b'{"model":"ch\xffeap"}', b'{"x":NaN}',
        b'{"model":"cheap",}', b"{'model':'cheap'}", b'{/*"*/"model":"cheap"}',
        b'\0{"model":"cheap"}', b'{"model":"cheap"}\0',
        b'{"x":' + b"[" * 10**6 + b"]" * 10**6 + b"}",
        b'{"model":"\\ud800"}', b'{"x":' + b'{"x":' * 40 + b'{"model":"m"}' + b"}" * 41,
    ],
)  # fmt: skip
def test_a_body_that_is_not_a_plain_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(APIError) as caught:
        inspect(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "model",
    ["..", ".", "a/../b", "../x", "a/..", "a\\..\\b", "%2e%2e", "a%2f..%2fb", "a%252f%252e%252e/b",
     "..;x=y/z", "a/. /b", "a\0", "a\n", "a%00b", "a%0d%0ab", " a", "a ", "a\u202e", "a\x85",
     "m" * 1025],
)  # fmt: skip
def test_a_name_that_could_leave_its_path_is_not_a_model(model: str) -> None:
    with pytest.raises(APIError, match="Invalid model name") as caught:
        check_model(model)
    assert (caught.value.status, caught.value.param) == (400, "model")


@pytest.mark.parametrize(
    "model",
    ["gpt-4o", "meta-llama/Llama-3.1-8B", "hf.co/x/y:Q4_K_M", "ft:gpt-4o:org::id", "a..b/c", "...",
     "@cf/meta/llama", "anthropic.claude-v2:1", "arn:aws:bedrock:us:1:profile/x", "модель",
     "models/gemini-2.5-flash", "x/.hidden", "100%"],
)  # fmt: skip
def test_names_that_vendors_give_are_models(model: str) -> None:
    assert check_model(model) == model


# ── against other parsers ────────────────────────────────────────────────────

SPELLINGS = [
    "model",
    "MODEL",
    "Model",
    "mode\u217c",
    "mo\\u0064el",
    "model\\u0000",
    " model",
    "models",
]
SPELLINGS += [
    "m\\u006fdel ",
    "\\u006dodel",
    "\u017ftream",
    "stream",
    "tools",
    "preset",
    "x",
    "requests",
]
VALUES = st.recursive(
    st.sampled_from(
        ['"cheap"', '"dear"', "null", "1", "true", '"\\ud800"', "NaN", '"models/dear"']
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(st.sampled_from(SPELLINGS), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f'"{name}":{value}' for name, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
MEMBERS = st.lists(st.tuples(st.sampled_from(SPELLINGS), VALUES), max_size=5)
AROUND = st.sampled_from(["", " ", "\ufeff", "\0", "x", "{}", "//", '{"model":"dear"}', "\n"])


@given(
    members=MEMBERS,
    before=AROUND,
    after=AROUND,
    encoding=st.sampled_from(["utf-8"] * 4 + ["utf-16"]),
)
@settings(max_examples=400, deadline=None)
def test_no_parser_finds_another_model_in_an_accepted_body(
    members: list[tuple[str, str]], before: str, after: str, encoding: str
) -> None:
    inner = ",".join(f'"{name}" :{value}' for name, value in members)
    body = f"{before}{{{inner}}}{after}".encode(encoding)
    try:
        found = inspect(body)
    except APIError:
        return
    json.loads(body, parse_constant=lambda name: pytest.fail(name))  # a strict reader takes it, too
    assert readers.as_json("application/json", body) <= {found.model, *found.others}, body


@given(st.text(max_size=8))
@settings(max_examples=300, deadline=None)
def test_names_are_folded_at_least_as_much_as_by_any_parser(name: str) -> None:
    for judged in CHECKED_MEMBERS:
        if readers.go_fold(name) == readers.go_fold(judged):
            assert folded(name) == folded(judged)


@given(
    st.dictionaries(
        st.text(max_size=6), st.integers() | st.text(max_size=5) | st.none(), max_size=5
    )
)
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("indent", [None, 2])
def test_plain_bodies_are_accepted(indent: int | None, body: dict[str, Any]) -> None:
    body = {
        name: value
        for name, value in body.items()
        if folded(name) not in map(folded, CHECKED_MEMBERS)
    }
    body |= {"model": "cheap", "messages": []}
    data = json.dumps(body, indent=indent, ensure_ascii=len(body) % 2 == 0).encode()
    assert inspect(data).model == "cheap"


def test_a_name_that_is_too_long_for_a_model_is_not_kept() -> None:
    assert peek_model(b'{"model":"' + b"x" * 1024 + b'"}').model == "x" * 1024
    assert peek_model(b'{"model":"' + b"x" * 1025 + b'"}').model == ""
