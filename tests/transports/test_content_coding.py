"""Content codings are decoded: whole and in pieces, stacked, with several members, and
with limits.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import brotli
import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from asgi_aiproxy._headers import combine_values, content_codings
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.upstream.content_encoding import ContentDecoder, content_decoder

MiB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    tool = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return tool.compress(data) + tool.flush()


PACK: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
}
each = pytest.mark.parametrize("name", PACK)


def decode(codings: list[str], *pieces: bytes, max_decoded: int = MiB, close: bool = True) -> bytes:
    undo = ContentDecoder(codings, max_decoded)
    out = []
    for piece in pieces:
        undo.feed(piece)
        while data := undo.next():
            out.append(data)
    if close:
        undo.close()
    return b"".join(out)


@each
def test_it_makes_no_difference_how_encoded_bytes_are_cut(name: str) -> None:
    coding, pack = PACK[name]
    text = b'{"choices": [{"message": "Hello"}]}' * 30
    packed = pack(text)
    for at in range(1, len(packed)):
        assert decode([coding], packed[:at], packed[at:]) == text
    assert decode([coding], *[packed[at : at + 1] for at in range(len(packed))]) == text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=5000), st.sampled_from(sorted(PACK)), st.sets(st.integers(1, 400)))
def test_any_encoded_bytes_are_decoded(data: bytes, name: str, cuts: set[int]) -> None:
    coding, pack = PACK[name]
    packed = pack(data)
    edges = [0, *sorted(cut for cut in cuts if cut < len(packed)), len(packed)]
    assert decode([coding], *[packed[a:b] for a, b in pairwise(edges)]) == data


@each
def test_an_encoding_that_ends_early_is_an_error(name: str) -> None:
    coding, pack = PACK[name]
    packed = pack(bytes(range(256)) * 20)
    for at in range(1, len(packed), 7):
        with pytest.raises(APIError, match="is invalid"):
            decode([coding], packed[:at])


@each
def test_an_empty_body_is_not_an_error(name: str) -> None:
    assert decode([PACK[name][0]]) == b""


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_members_are_one_answer(name: str) -> None:
    coding, pack = PACK[name]
    texts = [b"one ", b"", b"two " * 5000, b"three"]
    packed = b"".join(pack(text) for text in texts)
    assert decode([coding], packed) == b"".join(texts)
    for at in range(1, len(packed)):
        assert decode([coding], packed[:at], packed[at:]) == b"".join(texts)


@pytest.mark.parametrize("name", ["deflate", "raw deflate", "br", "gzip", "zstd"])
def test_bytes_after_the_end_are_an_error(name: str) -> None:
    coding, pack = PACK[name]
    with pytest.raises(APIError, match="is invalid"):
        decode([coding], pack(b"text") + b"and more of it")
    with pytest.raises(APIError, match="is invalid"):
        decode([coding], pack(b"text"), b"and more of it")


def test_empty_members_without_end_are_an_error() -> None:
    with pytest.raises(APIError, match="is invalid"):
        decode(["gzip"], gzip.compress(b"") * 10_000)


@pytest.mark.parametrize("outer", PACK)
@pytest.mark.parametrize("inner", PACK)
def test_codings_may_be_stacked(outer: str, inner: str) -> None:
    text = b"text in two coats " * 500
    packed = PACK[outer][1](PACK[inner][1](text))
    headers = [("content-encoding", f"{PACK[inner][0]}, {PACK[outer][0]}"), ("x", "y")]
    left, undo = content_decoder(headers)
    assert left == [("x", "y")]
    assert undo is not None
    out = b""
    for at in range(0, len(packed), 5):
        undo.feed(packed[at : at + 5])
        while piece := undo.next():
            out += piece
    undo.close()
    assert out == text


@each
def test_each_decoded_piece_and_the_total_are_bounded(name: str) -> None:
    coding, pack = PACK[name]
    undo = ContentDecoder([coding], 16 * MiB)
    undo.feed(pack(bytes(40 * MiB)))
    sizes = []

    def read() -> None:
        while piece := undo.next():
            sizes.append(len(piece))

    with pytest.raises(APIError, match=f"larger than {16 * MiB} bytes") as caught:
        read()
    assert caught.value.status == 502
    assert max(sizes) <= 2 * MiB
    assert sum(sizes) <= 16 * MiB


def test_a_bomb_within_a_bomb_is_bounded_at_each_stage() -> None:
    packed = gzip.compress(gzip.compress(bytes(40 * MiB)))
    with pytest.raises(APIError, match="larger than"):
        decode(["gzip", "gzip"], packed, max_decoded=MiB)
    # The inner one gives nothing: it has a comment without end (RFC 1952, 2.3).
    inner = b"\x1f\x8b\x08\x10" + bytes(6) + b"x" * (4 * MiB)
    with pytest.raises(APIError, match="larger than"):
        decode(["gzip", "gzip"], gzip.compress(inner), max_decoded=MiB)


def test_a_window_above_the_allowed_size_uses_no_memory() -> None:
    options = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj()
    packed = packer.compress(bytes(MiB)) + packer.flush()
    with pytest.raises(APIError, match="is invalid"):
        decode(["zstd"], packed, max_decoded=2 * MiB)


@pytest.mark.parametrize(
    ("values", "codings"),
    [
        (["Identity"], []),
        ([" identity ,\tIDENTITY"], []),
        ([""], []),
        (["GZip"], ["gzip"]),
        (["\tX-GZIP "], ["x-gzip"]),
        (["gzip", "gzip"], ["gzip"]),  # one header that is said twice
        (["gzip, gzip"], ["gzip", "gzip"]),
        (["deflate", "gzip"], ["deflate", "gzip"]),
    ],
)
def test_names_of_codings_are_case_insensitive(values: list[str], codings: list[str]) -> None:
    headers = [("content-encoding", value) for value in values]
    value = values[0]
    for more in values[1:]:
        value = combine_values(value, more)
    assert content_codings(value) == codings
    left, undo = content_decoder(headers)
    assert (undo is not None) == bool(codings)
    assert left == (headers if not codings else [])


def test_an_unknown_coding_is_an_error_that_names_it() -> None:
    with pytest.raises(APIError, match="'compress'"):
        content_decoder([("content-encoding", "gzip, compress")])
    with pytest.raises(APIError, match="more than 3 content codings"):
        content_decoder([("content-encoding", "gzip, br, gzip, br")])
