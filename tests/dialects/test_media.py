"""The type of an image, audio or document is detected from its bytes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asgi_aiproxy.dialects._media import media_type, sniff_media_type
from asgi_aiproxy.messages import Media

BYTES = {
    "image/png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "image/gif": b"GIF89a\x01\x00\x01\x00",
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "image/bmp": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36",
    "image/tiff": b"II*\x00\x08\x00\x00\x00",
    "image/heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00",
    "image/heif": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00",
    "image/avif": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00",
    "image/svg+xml": b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "application/pdf": b"%PDF-1.7\n",
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "audio/mpeg": b"ID3\x04\x00\x00",
    "audio/flac": b"fLaC\x00\x00",
    "audio/aiff": b"FORM\x00\x00\x00\x00AIFF",
}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("declared", ["", "image/*", "image/png", "application/octet-stream"])
def test_the_bytes_decide_the_type_whatever_was_declared(kind: str, declared: str) -> None:
    media = Media(kind="image", media_type=declared, data=encoded(BYTES[kind]))
    assert media_type(media) == kind


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("image/jpg", "image/jpeg"),
        ("IMAGE/JPG; charset=binary", "image/jpeg"),
        ("audio/mp3", "audio/mpeg"),
        ("video/mp4", "video/mp4"),
        ("image/*", ""),
        ("application/octet-stream", ""),
        ("", ""),
    ],
)
def test_the_declared_type_holds_where_the_bytes_are_unknown(declared: str, expected: str) -> None:
    media = Media(kind="image", media_type=declared, data=encoded(b"BMW, what is this?"))
    assert media_type(media) == expected


def test_audio_and_video_in_one_container_stay_as_declared() -> None:
    data = encoded(b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00")
    for declared in ("audio/mp4", "video/mp4"):
        assert media_type(Media(kind="audio", media_type=declared, data=data)) == declared


def test_base64_in_lines_is_read_as_well() -> None:
    text = encoded(BYTES["image/png"] + bytes(100))
    assert (
        sniff_media_type("\r\n".join(text[at : at + 8] for at in range(0, len(text), 8)))
        == "image/png"
    )


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40).map(encoded)))
def test_any_bytes_can_be_sniffed(data: Any) -> None:
    assert isinstance(sniff_media_type(data), str)
