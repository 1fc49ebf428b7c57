"""`Turnstile`: Cloudflare's check that a form is sent by a person, for sign-up and mail.

Theory of operation. A widget in the form obtains a token from Cloudflare. The token is worth
nothing until Cloudflare has confirmed it for this site's secret; it does so once, and within five
minutes. The answer also says for which `action` and at which host the token was made, which are
compared, so that a token of another form or of another site is refused. When Cloudflare cannot be
reached or its answer is unclear, the form is refused.

https://developers.cloudflare.com/turnstile/get-started/server-side-validation/
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal
from urllib.parse import urlencode

import msgspec

from asgi_aiproxy.errors import AIProxyError, APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream import default_transport
from asgi_aiproxy.upstream.base import UpstreamRequest, fetch

logger = logging.getLogger("asgi_aiproxy")

Action = Literal["sign-up", "mail"]
_ORIGIN = "https://challenges.cloudflare.com"
_TIMEOUT_SECONDS = 10.0
_MAX_TOKEN = 2048  # characters
_MAX_ANSWER = 64 * 1024


class _Answer(msgspec.Struct, frozen=True):
    """What is read of the answer."""

    success: bool
    hostname: str = ""
    action: str = ""
    error_codes: tuple[str, ...] = msgspec.field(name="error-codes", default=())


class Turnstile:
    """Checks tokens of the widget.

    Arguments:

    - `site_key`, `secret`: those of the widget, as Cloudflare shows them.
    - `host`: the host of the pages with the widget; empty: tokens of any host are accepted.
    - `url`: where tokens are verified.
    - `proxy`, `ca`: the URL of a proxy, and the path of a PEM file of a further authority.

    Raises ConfigurationError if a key is empty.
    """

    script = f"{_ORIGIN}/turnstile/v0/api.js"
    origin = _ORIGIN

    def __init__(
        self,
        site_key: str,
        secret: str,
        *,
        host: str = "",
        url: str = f"{_ORIGIN}/turnstile/v0/siteverify",
        proxy: str | None = None,
        ca: str | None = None,
    ) -> None:
        if not site_key or not secret:
            raise ConfigurationError("Turnstile: site_key and secret are required.")
        self.site_key = site_key
        self._secret = secret
        self._host = host
        self._url = url
        self._transport = default_transport(proxy=proxy, ca=ca)

    def __repr__(self) -> str:
        return f"Turnstile({self.site_key!r})"

    async def aclose(self) -> None:
        """Close its connections."""
        await self._transport.aclose()

    async def check(self, token: str, action: Action, address: str) -> None:
        """Check the token of a form that was sent from `address`. Raises APIError (403, 503)."""
        if not token or len(token) > _MAX_TOKEN:
            message = "Confirm that you are human: complete the check above the button."
            raise APIError(ErrorKind.FORBIDDEN, message, code="turnstile_missing")
        answer = await self._verify(token, address)
        host_differs = bool(self._host) and answer.hostname != self._host
        if not answer.success or answer.action != action or host_differs:
            logger.warning("Turnstile: refused: %s", ", ".join(answer.error_codes) or "other form")
            message = "The check that you are human failed or has expired. Repeat it."
            raise APIError(ErrorKind.FORBIDDEN, message, code="turnstile")

    async def _verify(self, token: str, address: str) -> _Answer:
        fields = {"secret": self._secret, "response": token}
        if address:
            fields["remoteip"] = address
        request = UpstreamRequest(
            method="POST",
            url=self._url,
            headers=[("content-type", "application/x-www-form-urlencoded")],
            body=urlencode(fields).encode(),
        )
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                _, body = await fetch(self._transport, request, _MAX_ANSWER)
            return msgspec.json.decode(body, type=_Answer)
        except (TimeoutError, AIProxyError, msgspec.DecodeError) as error:
            logger.error("Turnstile cannot be reached: %s", type(error).__name__)
            message = "The check that you are human is not available. Try again later."
            raise APIError(ErrorKind.OVERLOADED, message, code="turnstile_unavailable") from error
