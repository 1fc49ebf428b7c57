"""Decode the compressed body of a client's request within a bound on its decoded size.

Codex compresses its requests with Zstandard, others with gzip. What a request may be, and what it
asks for, is judged by its decoded body, which is what providers are sent.

https://www.rfc-editor.org/rfc/rfc9110#section-8.4, and 12.5.3 for `accept-encoding` beside a 415
"""

from __future__ import annotations

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.upstream.content_encoding import ContentDecoder, supported_codings

_MAX_CODINGS = 3  # each has its own memory
_MARGIN = 1024 * 1024  # bytes above the limit at which a decoder stops by itself


def check_codings(codings: list[str], *, supported: tuple[str, ...] | None = None) -> None:
    """Raise APIError (415) for codings of a request's body that are not supported here."""
    known = supported_codings() if supported is None else supported
    if len(codings) <= _MAX_CODINGS and all(coding in known for coding in codings):
        return
    words = f"Supported are {', '.join(known)}." if known else "Send it uncompressed."
    message = f"The request body's content-encoding {', '.join(codings)!r} is not supported here."
    error = APIError(ErrorKind.INVALID, f"{message} {words}", status=415)
    error.accept_encoding = known or ("identity",)
    raise error


async def decode_request_body(codings: list[str], body: bytes, limit: int) -> bytes:
    """Undo the codings, which are in the order of the header `content-encoding`.

    Raises APIError: 400 if the body is not valid in its coding, 413 above `limit` decoded bytes.
    """
    decoder = ContentDecoder(codings[::-1], limit + _MARGIN)  # the last was put on last
    rest = [body]

    async def more() -> bytes:
        return rest.pop() if rest else b""

    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await decoder.read(more):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                break
    except APIError:
        message = f"The request body could not be decoded as {', '.join(codings)}."
        raise APIError(ErrorKind.INVALID, message) from None
    if size > limit:
        message = f"The request body is larger than {limit} bytes when it is decoded."
        raise APIError(ErrorKind.TOO_LARGE, message)
    return b"".join(pieces)
