"""Budget alerts by webhook: signed, repeated until accepted, only to allowed addresses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from typing import Any

import pytest

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.quotas.alerts import BudgetAlert
from asgi_aiproxy.services.webhook import BudgetWebhook
from asgi_aiproxy.testing import serve

pytestmark = pytest.mark.anyio

KEY = b"sixteen bytes or more"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
ALERT = BudgetAlert(
    account="acme",
    caller="",
    unit="usd",
    per="month",
    period="2026-11",
    threshold=0.8,
    limit=1000,
    spent=801,
    at=1_796_000_000.0,
)


class Receiver:
    """A server that answers with the given statuses, the last one repeatedly."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((headers, body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        location = [(b"location", b"/elsewhere")] if status == 302 else []
        await send({"type": "http.response.start", "status": status, "headers": location})
        await send({"type": "http.response.body", "body": b""})


async def test_alerts_are_signed_and_repeated_until_they_are_accepted() -> None:
    receiver = Receiver(500, 302, 204)
    async with (
        serve(receiver) as url,
        BudgetWebhook(f"{url}/alerts", secret=SECRET, networks=None) as webhook,
    ):
        webhook(ALERT)
        await webhook.drain(30.0)
    assert len(receiver.requests) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    headers, body = receiver.requests[-1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    event = json.loads(body)
    assert event["type"] == "budget.threshold"
    assert event["data"]["account"] == "acme"
    assert (event["data"]["spent"], event["data"]["left"]) == (801, 199)


async def test_nothing_is_sent_to_an_address_that_is_not_allowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver(204)
    async with serve(receiver) as url:
        webhook = BudgetWebhook(url, secret=SECRET, retry_seconds=0.0)
        async with webhook:
            with caplog.at_level(logging.ERROR):
                webhook(ALERT)
                await webhook.drain(30.0)
        assert receiver.requests == []
        assert "could not be delivered" in caplog.text
        async with BudgetWebhook(url, secret=SECRET, networks=["127.0.0.0/8"]) as allowed:
            allowed(ALERT)
            await allowed.drain(30.0)
        assert len(receiver.requests) == 1
    assert SECRET not in caplog.text + repr(webhook)


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("ftp://example.com", SECRET, "https://"),
        ("https://", SECRET, "https://"),
        ("https://example.com", "short", "16 bytes"),
        ("https://example.com", "whsec_!", "base64"),
    ],
)
def test_invalid_arguments_are_refused(url: str, secret: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BudgetWebhook(url, secret=secret)
