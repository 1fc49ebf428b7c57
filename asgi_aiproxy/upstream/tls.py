"""A layer of TLS as bytes in and bytes out: several times cheaper than the event loops' own."""

from __future__ import annotations

import ssl

_READ = 256 * 1024


class TLSLayer:
    """The client's side of one TLS session. Raises ssl.SSLError where it goes wrong."""

    __slots__ = ("_incoming", "_outgoing", "_session", "ended", "ready")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ready = False  # the handshake is over, and the certificate in order
        self.ended = False  # the other side has said good-bye

    def handshake(self, data: bytes = b"") -> bytes:
        """Go on with the handshake by what came; returns what is to be sent."""
        self._incoming.write(data)
        try:
            self._session.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[bytes, bytes]:
        """What came, decrypted, and what is to be sent because of it (mostly nothing)."""
        incoming, read = self._incoming, self._session.read
        incoming.write(data)
        first = b""
        more: list[bytes] = []
        try:
            while incoming.pending or self._session.pending():
                piece = read(_READ)
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
        """Bytes as they are to be sent."""
        self._session.write(data)
        return self._outgoing.read()
