"""Odd but legal answers of vendors mean the same through every client API, however they arrive."""

from __future__ import annotations

import json
from functools import cache

import pytest

from asgi_aiproxy.dialects import OpenAICompletions
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.messages import Message, Request, Text, Tool, fold, unfold
from asgi_aiproxy.translate import NativeStreamTranslator, StreamTranslator
from tests.dialects.unusual import CASES, Case
from tests.dialects.unusual.meaning import check, knows
from tests.support.readers import READERS, sdk
from tests.support.stream_fixtures import cut, decode, faces, languages, translated

REQUEST = Request(
    model="m",
    messages=(Message("user", (Text("Hi"),)),),
    tools=(Tool(name="f"), Tool(name="g")),
    stream=True,
)
STREAMS = [case for case in CASES if case.stream]
WHOLE = [case for case in CASES if not case.stream]
FACES = [*faces(), "openai_completions"]


@cache
def face_of(name: str) -> InboundDialect:
    if name == "openai_completions":
        return OpenAICompletions(now=lambda: 1.0, new_id=lambda: "cmpl-new")
    return faces()[name]


def translator(case: Case, face: str) -> StreamTranslator:
    dialect = languages()[case.dialect]
    return StreamTranslator(
        dialect.framer(case.media_type), dialect.decoder(), face_of(face).encoder(REQUEST)
    )


# One test per case, with all client APIs: a test of its own for each would take longer to report
# than to run.


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_an_odd_stream_means_what_the_vendor_said(case: Case) -> None:
    for face in FACES:
        out, error = translated(translator(case, face), [case.data])
        assert (error.kind if error is not None else None) == case.error, face
        answer = READERS[face].stream(out)
        check(case, face, answer)
        if case.error is not None:
            assert answer.said == case.text, face
        if knows(case, face):
            sdk.stream(face, out)


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_an_odd_stream_is_the_same_wherever_it_is_cut(case: Case) -> None:
    data = case.data
    bytewise = [data[at : at + 1] for at in range(len(data))]
    third = len(data) // 3
    for face in FACES:
        together, _ = translated(translator(case, face), [data])
        for at in (third, 2 * third):
            halves, _ = translated(translator(case, face), [data[:at], data[at:]])
            assert plain(halves) == plain(together)
        assert plain(translated(translator(case, face), bytewise)[0]) == plain(together)


def plain(out: bytes) -> bytes:
    """Ids that are created again are the same."""
    for id in sorted(set(out.split(b'"')), reverse=True):
        if id.startswith(b"call_") and id[5:].isdigit():
            out = out.replace(b'"' + id + b'"', b'"call_n"')
    return out


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_an_odd_stream_is_a_whole_answer_for_clients_that_do_not_stream(case: Case) -> None:
    dialect = languages()[case.dialect]
    events, error = decode(dialect, cut(dialect.framer(case.media_type), [case.data]))
    assert (error.kind if error is not None else None) == case.error
    if error is not None:
        return
    for face in FACES:
        data = face_of(face).encode_response(fold(events), REQUEST)
        answer = READERS[face].whole(data)
        if face == "gemini" and case.usage is None:
            answer.usage = None
        check(case, face, answer)
        if knows(case, face):
            sdk.whole(face, data)


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_an_odd_whole_answer_means_what_the_vendor_said(case: Case) -> None:
    dialect = languages()[case.dialect]
    if case.error is not None:
        with pytest.raises(APIError) as caught:
            dialect.decode_response(case.data)
        assert caught.value.kind is case.error
        assert case.message in caught.value.message
        return
    response = dialect.decode_response(case.data)
    for face in FACES:
        data = face_of(face).encode_response(response, REQUEST)
        answer = READERS[face].whole(data)
        if face == "gemini" and case.usage is None:
            answer.usage = None
        check(case, face, answer)
        encoder = face_of(face).encoder(REQUEST)
        streamed = b"".join([encoder.feed(event) for event in unfold(response)])
        check(case, face, READERS[face].stream(streamed))
        if knows(case, face):
            sdk.whole(face, data)
            sdk.stream(face, streamed)


NATIVE = [case for case in CASES if case.dialect in faces() and case.native]


@pytest.mark.parametrize("case", NATIVE, ids=str)
def test_an_odd_answer_that_is_relayed_is_metered_and_fails_as_the_vendor_says(case: Case) -> None:
    for strict in (True, False):
        check_relayed(case, strict=strict)


def check_relayed(case: Case, *, strict: bool) -> None:
    reader = faces()[case.dialect].native_stream(usage_wanted=True, strict_format=strict)
    error = None
    if case.stream:
        translator = NativeStreamTranslator(reader)
        out, error = translated(translator, [case.data])
        bytewise = [case.data[at : at + 1] for at in range(len(case.data))]
        again = faces()[case.dialect].native_stream(usage_wanted=True, strict_format=strict)
        _, cut_error = translated(NativeStreamTranslator(again), bytewise)
        assert (cut_error.kind if cut_error else None) == (error.kind if error else None)
        assert again.usage == reader.usage
    else:
        try:
            out = reader.whole(case.data)
        except APIError as failure:
            error = failure
    assert (error.kind if error is not None else None) == case.error
    if error is None:
        usage = reader.usage
        found = usage and (usage.input, usage.output, usage.cache_read, usage.reasoning)
        assert found == case.usage
        assert out
    else:
        assert case.message in error.message


def test_there_are_many_for_each_dialect() -> None:
    # (Of Cohere, Bedrock and Coze there are those of the matrix in `tests/exchange`.)
    for dialect in {case.dialect for case in CASES} - {"cohere", "bedrock", "coze"}:
        assert sum(case.dialect == dialect for case in CASES) >= 60
    assert len({str(case) for case in CASES}) == len(CASES)
    assert all(json.dumps(case.calls) for case in CASES)
