"""The response parser compared with h11: a response that h11 refuses never leaves a connection in
use, and one that both accept is the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings, strategies as st

from asgi_aiproxy.upstream.http1 import HTTPProtocolError, ResponseParser


@dataclass
class Reading:
    """The result of parsing a response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    reusable: bool


def by_h11(method: str, raw: bytes) -> Reading | None:
    """The result of h11; None if it refuses the response, or it is incomplete."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    found: h11.Response | None = None
    body = b""
    at_end = False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        match event:
            case h11.Response():
                found = event
            case h11.Data():
                body += bytes(event.data)
            case h11.EndOfMessage():
                break
            case h11.InformationalResponse(status_code=101):
                return None
            case h11.NEED_DATA:
                if at_end:
                    return None
                at_end = True
                try:
                    connection.receive_data(b"")
                except RuntimeError:
                    return None
            case h11.PAUSED | h11.ConnectionClosed():
                return None
    assert found is not None
    reusable = connection.their_state is h11.DONE
    if found.http_version == b"1.0":  # which h11 never uses again; with this it may be
        named = dict(found.headers)
        options = b",".join([value for name, value in found.headers if name == b"connection"])
        reusable = b"keep-alive" in options.lower() and b"close" not in options.lower()
        reusable = reusable and b"transfer-encoding" not in named
    reusable = reusable and not at_end and not connection.trailing_data[0]
    return Reading(found.status_code, list(found.headers), body, reusable)


def by_us(method: str, pieces: list[bytes]) -> Reading | None:
    """The result of this package; None if it refuses the response, or it is incomplete."""
    reader = ResponseParser(method)
    try:
        body = b"".join([reader.feed(piece) for piece in pieces])
        reusable = reader.done and reader.reusable
        if not reader.done:
            reader.close()
    except HTTPProtocolError:
        return None
    headers = []
    for name, value in reader.headers:
        # (h11 writes the names of transfer codings in lower case.)
        text = value.lower() if name == "transfer-encoding" else value
        headers.append((name.encode("latin-1"), text.encode("latin-1")))
    return Reading(reader.status, headers, body, reusable)


def compare(method: str, raw: bytes, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    ours = by_us(method, [raw[a:b] for a, b in pairwise(edges)])
    theirs = by_h11(method, raw)
    if ours is None:
        return
    if theirs is None:
        assert not ours.reusable
        return
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    assert ours.headers == theirs.headers
    assert theirs.reusable or not ours.reusable


VALUES = st.sampled_from(
    b"|0|2|5|+5|5, 5|5\xa0|0x5|5;|chunked|Chunked|\x0bchunked|chunked\x85|chunked, chunked|"
    b"gzip, chunked|identity|close|keep-alive|x, close|keep-alive, close|a\xa0|\x85|a\rb".split(
        b"|"
    )
)
NAMES = st.sampled_from(
    [b"Content-Length", b"Transfer-Encoding", b"Connection", b"X", b"X ", b"\xa0X", b"", b" X"]
)
COMMON = st.sampled_from(
    [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close"]
)
FIELDS = st.one_of(COMMON, st.builds(lambda name, value: name + b": " + value, NAMES, VALUES))
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n "])
FIRST = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 6
    + [b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not", b"HTTP/1.1 500 "]
    + [b"HTTP/1.2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1  200 OK", b"\r\nHTTP/1.1 200 OK"]
    + [b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 101 X"]
)
PIECES = (
    b"hello|5\r\nhello\r\n|0\r\n\r\n|5;a=b\r\nhello\r\n|0\r\nA: b\r\n\r\n|05\r\nhello\r\n|"
    b"5 \r\nhello\r\n|5\nhello\r\n|5\r\nhello\n|-5\r\n|0x5\r\nhello\r\n|\r\n|\n|"
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".split(b"|")
)
BODIES = st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    fields = draw(st.lists(FIELDS, max_size=3))
    head = b"".join(line + draw(ENDS) for line in [draw(FIRST), *fields])
    return head + draw(ENDS) + draw(BODIES)


CUTS = st.sets(st.integers(1, 200), max_size=4)
METHODS = st.sampled_from(["GET", "GET", "HEAD"])
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@settings(max_examples=400, deadline=None)
@given(METHODS, answers(), CUTS)
@example("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", set())
@example("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 3\xa0\r\n\r\nabc", set())
@example("GET", CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n", set())
@example("GET", CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", {30})
def test_an_answer_is_refused_or_read_as_h11_reads_it(
    method: str, raw: bytes, cuts: set[int]
) -> None:
    compare(method, raw, cuts)


SOUND = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Y: z\r\n\r\nhello",
    CHUNKED + b"\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n\r\nuntil it ends",
]
SPLICES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b"\x0b", b"\xa0", b":", b",5"]
)


@settings(max_examples=400, deadline=None)
@given(METHODS, st.sampled_from(SOUND), st.integers(0, 120), st.integers(0, 2), SPLICES, CUTS)
def test_a_response_with_a_wrong_byte_is_refused_or_read_as_h11_reads_it(
    method: str, raw: bytes, at: int, removed: int, splice: bytes, cuts: set[int]
) -> None:
    at = min(at, len(raw))
    compare(method, raw[:at] + splice + raw[at + removed :], cuts)


def test_valid_responses_are_read_by_both() -> None:
    for raw in SOUND:
        ours, theirs = by_us("GET", [raw]), by_h11("GET", raw)
        assert ours is not None
        assert ours == theirs


@pytest.mark.parametrize("cuts", [set(), set(range(1, 80))])
def test_an_empty_line_before_any_response_is_refused(cuts: set[int]) -> None:
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    for interim in (b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\na: b\r\n\r\n"):
        compare("GET", interim + b"\r\n" + final, cuts)
        compare("GET", interim + final, cuts)
        parser = ResponseParser("GET")
        with pytest.raises(HTTPProtocolError, match="does not begin with HTTP/1"):
            parser.feed(interim + b"\r\n" + final)
