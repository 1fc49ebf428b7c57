"""Amazon's binary event stream: read whatever way it is cut, and refused where it is damaged."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.dialects import BEDROCK_CONVERSE, OPENAI_CHAT
from asgi_aiproxy.dialects._event_stream import EventStreamFramer
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.framing import MAX_FRAME
from asgi_aiproxy.messages import Request
from asgi_aiproxy.translate import StreamTranslator
from tests.support.event_stream import event, message, sealed
from tests.support.stream_fixtures import cut

START = event("messageStart", {"role": "assistant"})
DELTA = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}})
STREAM = START + DELTA + DELTA + event("contentBlockStop", {"contentBlockIndex": 0})
PIECES = [
    b'{"messageStart":{"role": "assistant"}}',
    b'{"contentBlockDelta":{"contentBlockIndex": 0, "delta": {"text": "Hel"}}}',
    b'{"contentBlockDelta":{"contentBlockIndex": 0, "delta": {"text": "Hel"}}}',
    b'{"contentBlockStop":{"contentBlockIndex": 0}}',
]
REQUEST = Request(model="m", messages=(), stream=True)


def read(data: bytes, size: int, limit: int = MAX_FRAME) -> tuple[list[bytes], APIError | None]:
    """The pieces of a stream that arrives in parts of `size` bytes, and how it failed."""
    framer = EventStreamFramer(limit)
    found: list[bytes] = []
    try:
        for start in range(0, len(data), size):
            found += framer.feed(data[start : start + size])
        assert framer.close() is None
    except APIError as error:
        return found, error
    return found, None


def test_events_are_named_in_their_json() -> None:
    assert cut(EventStreamFramer(), [STREAM]) == PIECES


def test_payloads_of_one_type_can_be_had_without_its_name() -> None:
    framer = EventStreamFramer(bare="contentBlockDelta")
    alone = b'{"contentBlockIndex": 0, "delta": {"text": "Hel"}}'
    assert cut(framer, [STREAM]) == [PIECES[0], alone, alone, PIECES[3]]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_a_stream_is_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in pairwise(edges)]
    assert cut(EventStreamFramer(), parts) == PIECES


def test_a_stream_that_arrives_byte_by_byte_is_the_same() -> None:
    parts = [STREAM[at : at + 1] for at in range(len(STREAM))]
    assert cut(EventStreamFramer(), parts) == PIECES


@pytest.mark.parametrize("size", [1, 7, len(STREAM)])
def test_the_largest_size_of_an_event_holds_however_it_arrives(size: int) -> None:
    large = event("contentBlockDelta", {"delta": {"text": "l" * 100}})
    found, error = read(DELTA + large, size, limit=len(large) - 1)
    assert found == [PIECES[1]]
    assert error is not None
    assert "larger than" in error.message


NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=20)
EVENTS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, st.text(max_size=20), max_size=3)))


@given(EVENTS, st.integers(1, 40))
def test_events_mean_what_amazons_own_reader_finds(
    events: list[tuple[str, dict[str, str]]], size: int
) -> None:
    data = b"".join(event(name, payload) for name, payload in events)
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    theirs = EventStreamBuffer()
    theirs.add_data(data)
    expected = [{m.headers[":event-type"]: json.loads(m.payload)} for m in theirs]
    assert [json.loads(piece) for piece in cut(EventStreamFramer(), parts)] == expected


@settings(max_examples=300)
@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255), st.integers(1, 64))
def test_a_changed_byte_never_passes(at: int, change: int, size: int) -> None:
    data = bytearray(STREAM)
    data[at] ^= change
    found, error = read(bytes(data), size)
    assert error is not None
    assert error.kind is ErrorKind.UPSTREAM
    assert found == PIECES[: len(found)]


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    found, error = read(data, 16)
    assert found == []
    assert (error is None) is (data == b"")


@pytest.mark.parametrize("end", range(1, len(DELTA)))
def test_a_stream_that_ends_within_an_event_is_incomplete(end: int) -> None:
    framer = EventStreamFramer()
    framer.feed(START + DELTA[:end])
    with pytest.raises(APIError, match="ended within an event"):
        framer.close()


def test_what_is_complete_before_a_damaged_event_is_translated_first() -> None:
    damaged = bytearray(DELTA)
    damaged[-1] ^= 1
    translator = StreamTranslator(
        EventStreamFramer(), BEDROCK_CONVERSE.decoder(), OPENAI_CHAT.encoder(REQUEST)
    )
    out = translator.feed(START + DELTA + bytes(damaged))
    with pytest.raises(APIError, match="checksum") as caught:
        translator.close()
    out += translator.fail(caught.value)
    assert b'"content":"Hel"' in out
    assert b"checksum" in out
    assert b"[DONE]" not in out


def test_a_length_is_not_believed_before_its_checksum_is_verified() -> None:
    prelude = (2**31).to_bytes(4) + (0).to_bytes(4)
    with pytest.raises(APIError, match="checksum of an event's length"):
        EventStreamFramer().feed(prelude + bytes(4))


def test_an_event_above_the_limit_is_refused_by_its_length() -> None:
    large = event("contentBlockDelta", {"delta": {"text": "x" * 5000}})
    with pytest.raises(APIError, match="larger than 4096 bytes"):
        EventStreamFramer(limit=4096).feed(large[:12])


def test_exceptions_and_errors_are_events_too() -> None:
    exception = event("throttlingException", {"message": "Slow down."}, "exception")
    error = message(
        {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Oh."}, b""
    )
    assert [json.loads(piece) for piece in cut(EventStreamFramer(), [exception + error])] == [
        {"throttlingException": {"message": "Slow down."}},
        {"error": {"code": "InternalFailure", "message": "Oh."}},
    ]


def test_events_with_large_headers_are_read_like_others() -> None:
    headers = {"padding": "x" * 600, ":event-type": "ping", ":message-type": "event"}
    assert cut(EventStreamFramer(), [message(headers, b"[1]") * 2 + START]) == [
        b'{"ping":[1]}',
        b'{"ping":[1]}',
        PIECES[0],
    ]


def test_headers_of_every_type_are_passed_over() -> None:
    values = [b"\x00", b"\x01", b"\x02\x07", b"\x03\x00\x07", b"\x04" + bytes(4)]
    values += [b"\x05" + bytes(8), b"\x06\x00\x02ab", b"\x08" + bytes(8), b"\x09" + bytes(16)]
    others = b"".join(bytes([1, 97 + at]) + value for at, value in enumerate(values))
    name = b"\x0b:event-type\x07\x00\x04ping"
    assert cut(EventStreamFramer(), [sealed(others + name, b"")]) == [b'{"ping":{}}']


@pytest.mark.parametrize(
    "headers",
    [b"\x05ab", b"\x01a", b"\x01a\x0a", b"\x01a\x07\x00\x09ab", b"\x01\xff\x07\x00\x00"],
    ids=["name cut", "no type", "unknown type", "value cut", "not UTF-8"],
)
def test_invalid_headers_are_refused(headers: bytes) -> None:
    with pytest.raises(APIError, match="header"):
        EventStreamFramer().feed(sealed(headers, b"{}"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", ErrorKind.LIMITED),
        ("serviceUnavailableException", ErrorKind.OVERLOADED),
        ("internalServerException", ErrorKind.UPSTREAM),
        ("modelStreamErrorException", ErrorKind.UPSTREAM),
        ("modelTimeoutException", ErrorKind.TIMEOUT),
        ("validationException", ErrorKind.INVALID),
        ("somethingNewException", ErrorKind.UPSTREAM),
    ],
)
def test_exceptions_within_a_stream_have_their_kind(name: str, kind: ErrorKind) -> None:
    (piece,) = EventStreamFramer().feed(event(name, {"message": "No."}, "exception"))
    with pytest.raises(APIError, match=r"No\.") as caught:
        BEDROCK_CONVERSE.decoder().feed(piece)
    assert caught.value.kind is kind
    assert caught.value.words == (name[0].upper() + name[1:],)
