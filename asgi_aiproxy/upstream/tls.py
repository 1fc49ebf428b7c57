"""A TLS layer as bytes in and bytes out: several times cheaper than the event loops' own TLS."""

from __future__ import annotations

import ssl

_READ_SIZE = 256 * 1024


class TLSLayer:
    """The client side of one TLS session. Methods raise ssl.SSLError."""

    __slots__ = ("_incoming", "_outgoing", "_session", "ended", "ready")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ready = False  # the handshake is complete, and the certificate was verified
        self.ended = False  # the peer has sent close_notify

    def handshake(self, data: bytes = b"") -> bytes:
        """Continue the handshake with received bytes; returns the bytes to send."""
        self._incoming.write(data)
        try:
            self._session.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[bytes, bytes]:
        """Decrypt received bytes; returns the plain text, and bytes to send in response (usually
        empty).
        """
        incoming, read = self._incoming, self._session.read
        incoming.write(data)
        first = b""
        more: list[bytes] = []
        try:
            while incoming.pending or self._session.pending():
                piece = read(_READ_SIZE)
                if not piece:
                    self.ended = True
                    break
                if first:
                    more.append(piece)
                else:
                    first = piece
        except ssl.SSLWantReadError:
            pass
        answer = self._outgoing.read() if self._outgoing.pending else b""
        return (b"".join((first, *more)) if more else first), answer

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt bytes to be sent."""
        self._session.write(data)
        return self._outgoing.read()
