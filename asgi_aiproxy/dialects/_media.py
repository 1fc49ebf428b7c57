"""Detects the media type of a file from its first bytes.

Vendors compare the declared type with the bytes and answer 400 if they differ. The signatures are
from https://mimesniff.spec.whatwg.org and from the specifications of the formats. For containers of
both audio and video (MP4, Ogg, WebM) the declared type is kept.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import Media

T = TypeVar("T", bound=Any)

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
)
_RIFF_TYPES = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_IFF_TYPES = {b"AIFF": "audio/aiff", b"AIFC": "audio/aiff"}
_ISO_BMFF_TYPES = {b"avif": "image/avif", b"avis": "image/avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"
)
_HEIF_BRANDS = (b"mif1", b"msf1", b"heif")
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/svg": "image/svg+xml",
    "application/x-pdf": "application/pdf",
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/x-aiff": "audio/aiff",
}
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_WHITE_SPACE = b" \t\r\n"
_SNIFFED_LENGTH = 1368  # characters of base64: 1,026 bytes


def media_type(media: Media) -> str:
    """The registered media type of `data`: detected from its bytes, else as declared.

    Empty if the bytes are not recognized and no concrete type is declared (`image/*`, for example).
    """
    declared = media.media_type.partition(";")[0].strip().lower()
    declared = _ALIASES.get(declared, declared)
    if "*" in declared or declared == "application/octet-stream":
        declared = ""
    return sniff_media_type(media.data) or declared


def require_base64(part: T, where: str) -> T:
    """Return a part of a client's request. Raises APIError if its data is not base64."""
    if isinstance(part, Media) and part.data:
        data = part.data.encode("utf-8", "surrogatepass").translate(None, _WHITE_SPACE)
        data = data.rstrip(b"=")
        if len(data) % 4 == 1 or data.translate(None, _BASE64):
            raise invalid(f"'{where}': its data is not valid base64.", where, "invalid_base64")
    return part


def sniff_media_type(data: str) -> str:
    """The media type detected from the first bytes of base64 data; empty if not recognized."""
    head = "".join(data[:_SNIFFED_LENGTH].split())
    try:
        start = base64.b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return ""
    for signature, found in _SIGNATURES:
        if start.startswith(signature):
            return found
    if start.startswith(b"BM") and start[6:10] == bytes(4):
        return "image/bmp"
    kind = start[8:12]
    if start.startswith(b"RIFF"):
        return _RIFF_TYPES.get(kind, "")
    if start.startswith(b"FORM"):
        return _IFF_TYPES.get(kind, "")
    if start[4:8] == b"ftyp":
        return _ISO_BMFF_TYPES.get(kind) or ("image/heif" if kind in _HEIF_BRANDS else "")
    return "image/svg+xml" if _is_svg(start) else ""


def _is_svg(start: bytes) -> bool:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<svg"):
        return True
    return text.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in text
