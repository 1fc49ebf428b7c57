"""Mail through a real SMTP server on the loopback address, with TLS that is verified."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default

import pytest
import trustme

from asgi_aiproxy.errors import APIError
from asgi_aiproxy.services.mail import Mail, SMTPMailer

pytestmark = pytest.mark.anyio
MAIL = Mail(to="ann@example.com", subject="Gateway: Grüße", text="Open this:\n\nhttps://x.test/ü\n")


@dataclass
class Server:
    """What an SMTP server has received; `refuse` is its answer to recipients."""

    port: int = 0
    messages: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    refuse: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")

        say("220 test")
        while line := (await reader.readline()).decode().strip():
            self.commands.append(line)
            word = line.split()[0].upper()
            if word == "EHLO":
                say("250-test")
                say("250 AUTH PLAIN")
            elif word == "AUTH":
                say("235 ok")
            elif word == "RCPT" and self.refuse:
                say(self.refuse)
            elif word == "DATA":
                say("354 go on")
                self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                say("250 ok")
            elif word == "QUIT":
                say("221 bye")
                break
            else:
                say("250 ok")
        writer.close()


@asynccontextmanager
async def smtp(context: ssl.SSLContext | None = None, refuse: str = "") -> AsyncIterator[Server]:
    found = Server(refuse=refuse)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


async def test_a_mail_arrives_whole_with_its_text_and_subject() -> None:
    async with smtp() as server:
        mailer = SMTPMailer(
            "127.0.0.1", port=server.port, sender="ai@example.com", security="none",
            user="ai", password="geheim",
        )  # fmt: skip
        await mailer(MAIL)
    message = message_from_bytes(server.messages[0].removesuffix(b".\r\n"), policy=default)
    assert (message["To"], message["From"]) == ("ann@example.com", "ai@example.com")
    assert message["Subject"] == MAIL.subject
    assert message.get_content().replace("\r\n", "\n").strip() == MAIL.text.strip()
    assert any(line.startswith("AUTH PLAIN") for line in server.commands)
    assert "geheim" not in repr(mailer)


async def test_tls_is_verified() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with smtp(context) as server:
        options = {"port": server.port, "sender": "ai@example.com", "security": "tls"}
        await SMTPMailer("127.0.0.1", **options, ssl_context=trusting)(MAIL)  # type: ignore[arg-type]
        with pytest.raises(APIError):
            await SMTPMailer("127.0.0.1", **options)(MAIL)  # type: ignore[arg-type]
    assert len(server.messages) == 1


async def test_without_starttls_of_the_server_nothing_is_sent() -> None:
    async with smtp() as server:
        with pytest.raises(APIError) as failed:
            await SMTPMailer("127.0.0.1", port=server.port, sender="ai@example.com")(MAIL)
    assert failed.value.status == 503
    assert not any(line.startswith(("MAIL", "AUTH")) for line in server.commands)


async def test_a_recipient_that_is_refused_is_an_error_without_details_of_the_server() -> None:
    async with smtp(refuse="550 internal-host says no") as server:
        mailer = SMTPMailer("127.0.0.1", port=server.port, sender="a@example.com", security="none")
        with pytest.raises(APIError, match="could not be sent") as failed:
            await mailer(MAIL)
    assert "internal-host" not in failed.value.message


@pytest.mark.parametrize("field", ["to", "subject"])
async def test_no_header_is_injected(field: str) -> None:
    async with smtp() as server:
        mailer = SMTPMailer("127.0.0.1", port=server.port, sender="a@example.com", security="none")
        values = {"to": "a@example.com", "subject": "x", "text": "x"}
        values[field] += "\r\nBcc: all@example.com"
        with pytest.raises(APIError):
            await mailer(Mail(**values))
    assert server.messages == []
