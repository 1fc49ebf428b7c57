"""Mail to users: what is sent, and how: by a callable, or an SMTP server.

A message is made with the standard library's `email` package, which refuses line breaks in headers.
It is sent from a thread, with TLS that verifies the server, and counted as sent when the server has
accepted it.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Literal

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind

Security = Literal["tls", "starttls", "none"]
_PORTS: dict[Security, int] = {"tls": 465, "starttls": 587, "none": 25}


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A message: the address that it is sent to, its subject, and its text."""

    to: str
    subject: str
    text: str


Mailer = Callable[[Mail], Awaitable[None]]


class SMTPMailer:
    """Sends mail through an SMTP server (RFC 5321).

    Arguments:

    - `host`, `port`: the server; the port is by default 465 (`tls`), 587 (`starttls`), 25 (`none`).
    - `sender`: the address that mail is from.
    - `security`: TLS from the first byte, `starttls` (RFC 3207; without it nothing is sent), or
      none, for a server on the same machine.
    - `user`, `password`: credentials; empty: without authentication.
    - `timeout`: in seconds, of each step.

    Raises APIError (503) if the server does not accept a message.
    """

    def __init__(
        self,
        host: str,
        *,
        sender: str,
        port: int | None = None,
        security: Security = "starttls",
        user: str = "",
        password: str = "",
        timeout: float = 20.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port if port is not None else _PORTS[security]
        self._sender = sender
        self._security = security
        self._user = user
        self._password = password
        self._timeout = timeout
        self._context = ssl_context

    def __repr__(self) -> str:
        return f"SMTPMailer({self._host!r}, port={self._port})"

    async def __call__(self, mail: Mail) -> None:
        """Send a message."""
        try:
            await asyncio.to_thread(self._send, self._message(mail))
        except (OSError, smtplib.SMTPException, ValueError) as error:
            message = "The mail could not be sent. Try again later."
            raise APIError(ErrorKind.OVERLOADED, message, code="mail") from error

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2] or "localhost")
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
        message.set_content(mail.text)
        return message

    def _send(self, message: EmailMessage) -> None:
        context = self._context if self._context is not None else ssl.create_default_context()
        if self._security == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port, timeout=self._timeout, context=context
            )
        else:
            client = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        with client:
            if self._security == "starttls":
                client.starttls(context=context)
            if self._user:
                client.login(self._user, self._password)
            client.send_message(message)
