"""HTTP/1.1 responses, parsed from bytes that are cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.upstream.http1 import (
    MAX_HEAD,
    MAX_HEADERS,
    HTTPProtocolError,
    ResponseParser,
    request_head,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "counted": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello", b"hello"),
    "chunked": (CHUNKED + b"2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n", b"hello"),
    "chunked, with extras": (CHUNKED + b"5;a=b\r\nhello\r\n00\r\nA: b\r\nC:\r\n\r\n", b"hello"),
    "line ends in chunks": (CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "no content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", b""),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\nX:\r\n\r\nhello", b"hello"),
}


def read(*pieces: bytes, method: str = "POST", close: bool = False) -> tuple[ResponseParser, bytes]:
    reader = ResponseParser(method)
    body = b"".join(reader.feed(piece) for piece in pieces)
    if close:
        reader.close()
    return reader, body


@pytest.mark.parametrize("name", ANSWERS)
def test_a_response_is_parsed_the_same_however_it_is_cut(name: str) -> None:
    raw, expected = ANSWERS[name]
    whole, body = read(raw)
    assert (body, whole.done, whole.reusable) == (expected, True, True)
    for at in range(1, len(raw)):
        reader, body = read(raw[:at], raw[at:])
        assert (reader.status, reader.headers) == (whole.status, whole.headers), at
        assert (body, reader.done, reader.reusable) == (expected, True, True), at
    reader, body = read(*[raw[at : at + 1] for at in range(len(raw))])
    assert (body, reader.done, reader.headers) == (expected, True, whole.headers)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_truncated_response_is_never_complete(name: str) -> None:
    raw, _ = ANSWERS[name]
    for at in range(len(raw)):
        reader, _ = read(raw[:at])
        assert not reader.done, at
        with pytest.raises(HTTPProtocolError):
            reader.close()


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_any_chunks_in_any_pieces_give_the_body(chunks: list[bytes], data: st.DataObject) -> None:
    coded = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    raw = CHUNKED + coded + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=8)))
    edges = [0, *cuts, len(raw)]
    reader, body = read(*[raw[a:b] for a, b in pairwise(edges)])
    assert (body, reader.done, reader.reusable) == (b"".join(chunks), True, True)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_parsed_or_refused(data: bytes, cut: int) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", CHUNKED):
        reader = ResponseParser("POST")
        try:
            reader.feed(start + data[:cut])
            reader.feed(data[cut:])
            reader.close()
        except HTTPProtocolError:
            pass


def test_a_body_without_a_length_lasts_until_the_connection_ends() -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\n", b"as long", b" as it comes")
    assert (body, reader.done) == (b"as long as it comes", False)
    reader.close()
    assert (reader.done, reader.reusable) == (True, False)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", False),
        (CHUNKED + b"0\r\n\r\nHTTP/1.1", False),
        (CHUNKED + b"0\r\n\r\n\r\n", False),
        (CHUNKED + b"0\r\nA: b\r\n\r\n\0", False),
        (CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", False),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n0\r\n\r\n"), False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, close\r\n\r\n", False),
        # RFC 9112, 6.1: HTTP/1.0 with a transfer coding is framed in a way not to be trusted.
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            False,
        ),
    ],
)
def test_the_reuse_of_the_connection_is_decided(head: bytes, reusable: bool) -> None:
    reader, body = read(head)
    assert (reader.done, reader.reusable, body) == (True, reusable, b"")


@pytest.mark.parametrize("framing", [b"Content-Length: 50", b"Transfer-Encoding: chunked", b"X: y"])
def test_an_answer_to_head_has_no_body(framing: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
    reader, _ = read(head, method="HEAD")
    assert (reader.done, reader.reusable) == (True, True)
    reader, body = read(head + b"a body", method="HEAD")
    assert (reader.done, reader.reusable, body) == (True, False, b"")


def test_bytes_after_a_response_are_never_part_of_its_body() -> None:
    for raw, _ in ANSWERS.values():
        for rest in (b"\r\n", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"):
            for pieces in ([raw + rest], [raw, rest]):
                reader, body = read(*pieces)
                assert (reader.done, reader.reusable, reader.surplus) == (True, False, True)
                assert body == read(raw)[1]


def test_a_tunnel_is_never_used_for_another_request() -> None:
    reader, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", method="CONNECT")
    assert (reader.done, reader.reusable, reader.surplus) == (True, False, False)
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nearly", method="CONNECT")
    assert (reader.done, reader.surplus, body) == (True, True, b"")


def test_header_values_are_the_bytes_that_were_sent() -> None:
    value = bytes([*range(0x21, 0x7F), 0x20, 0x09, *range(0x80, 0x100)])
    for end in (b"\x85", b"\xa0", "voilà".encode(), b"\x1f"[:0]):
        raw = b"HTTP/1.1 200 OK\r\nX-A:\t %b%b \t\r\nContent-Length: 0\r\n\r\n" % (value, end)
        reader, _ = read(raw)
        assert reader.headers[0] == ("x-a", (value + end).decode("latin-1"))


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : spaced\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Request-Id: a\rSet-Cookie: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Request-Id: a\0b\r\n\r\n",
        # What some servers read in one way and some in another: lines that end with a mere LF,
        # folded lines, lengths that are repeated, or that stand beside a transfer coding.
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\xa0\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\x85\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"ICE/1.0 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nrest",
        CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"0x5\r\nhello",
        CHUNKED + b"-5\r\nhello",
        CHUNKED + b"5_0\r\nhello",
        CHUNKED + b"5\r\nhelloX\r\n",
        CHUNKED + b"5\r\nhello\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"5;" + b"x" * 5000,
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 30_000,
        CHUNKED + b"0\r\nX: " + b"y" * MAX_HEAD,
        CHUNKED + b"5\r\nhello\r\n5;" + b"x" * 20_000 + b"\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD,
        b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD,
        b"HTTP/1.1 200 " + b"x" * MAX_HEAD,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 4000,
    ],
)
def test_an_invalid_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(HTTPProtocolError):
        read(raw)
    with pytest.raises(HTTPProtocolError):
        read(*[raw[at : at + 97] for at in range(0, len(raw), 97)])


def test_the_largest_head_and_trailers_are_read() -> None:
    line = b"X: " + b"y" * 495 + b"\r\n"
    many = line * (MAX_HEADERS - 1)
    reader, body = read(CHUNKED[:-2] + many + b"\r\n" + b"2\r\nok\r\n0\r\n" + many + b"\r\n")
    assert (len(reader.headers), body, reader.reusable) == (MAX_HEADERS, b"ok", True)


def test_the_error_gives_the_reason_of_a_refused_response() -> None:
    for raw, why in {
        b"HTTP/1.1 200 OK\nX: y\n\n": "invalid HTTP response: Missing expected CR",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300: f"more than {MAX_HEADERS} headers",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD: f"longer than {MAX_HEAD} bytes",
        b"SSH-2.0": "does not begin with HTTP/1.1",
        CHUNKED + b"5;" + b"x" * 5000: "a chunk size or the trailers are too long",
    }.items():
        with pytest.raises(HTTPProtocolError, match=why):
            read(raw)


def test_a_request_is_encoded_exactly() -> None:
    head = request_head("POST", "/v1/x?y=z", [("host", "h:1"), ("x-a", "1"), ("x-a", "ü")])
    assert head == b"POST /v1/x?y=z HTTP/1.1\r\nhost: h:1\r\nx-a: 1\r\nx-a: \xfc\r\n\r\n"
    # What no byte of Latin-1 can say is said in UTF-8.
    assert "x: 東\r\n".encode() in request_head("GET", "/", [("x", "東")])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b", "c"),
        ("", "c"),
        ("a:", "c"),
        ("a", "b\n"),
        ("a", "b\r\nc: d"),
        ("a", "\0"),
        ("ä", ""),
    ],
)
def test_ambiguous_requests_are_not_written(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        request_head("GET", "/", [(name, value)])
