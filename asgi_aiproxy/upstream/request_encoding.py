"""Decode the compressed body of a client's request, with a limit on its decoded size.

Codex compresses its requests with Zstandard, other clients with gzip. All checks and limits apply
to the decoded body, which is also what providers receive.

https://www.rfc-editor.org/rfc/rfc9110#section-8.4, and 12.5.3 for `accept-encoding` in a 415
"""

from __future__ import annotations

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.upstream.content_encoding import ContentDecoder, supported_codings

_MAX_CODINGS = 3  # each has its own memory
_MARGIN = 1024 * 1024  # bytes above the limit before the decoder's own limit applies


def check_codings(codings: list[str], *, supported: tuple[str, ...] | None = None) -> None:
    """Raise APIError (415) for content codings of a request that are not supported."""
    supported_names = supported_codings() if supported is None else supported
    if len(codings) <= _MAX_CODINGS and all(coding in supported_names for coding in codings):
        return
    advice = (
        f"Supported are {', '.join(supported_names)}."
        if supported_names
        else "Send it uncompressed."
    )
    message = f"The request body's content-encoding {', '.join(codings)!r} is not supported."
    error = APIError(ErrorKind.INVALID, f"{message} {advice}", status=415)
    error.accept_encoding = supported_names or ("identity",)
    raise error


async def decode_request_body(codings: list[str], body: bytes, limit: int) -> bytes:
    """Decode a body; `codings` are in the order of the header `content-encoding`.

    Raises APIError: 400 if the body is invalid, 413 above `limit` decoded bytes.
    """
    # Codings are listed in the order in which they were applied
    decoder = ContentDecoder(codings[::-1], limit + _MARGIN)
    remaining = [body]

    async def more() -> bytes:
        return remaining.pop() if remaining else b""

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
        message = f"The decoded request body is larger than {limit} bytes."
        raise APIError(ErrorKind.TOO_LARGE, message)
    return b"".join(pieces)
