"""Connections that can not be made: a caller learns how that came, the log also where they led.

The address is kept from callers, for that of an internal server is nobody's business.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind
from asgi_aiproxy.upstream.connect import parse_proxy_url

logger = logging.getLogger("asgi_aiproxy")


def host_and_port(url: str) -> str:
    """Host and port of a URL, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def check_proxy(url: str) -> None:
    """Raise APIError if the outbound proxy of one call is none; the error does not quote it."""
    try:
        parse_proxy_url(url)
    except ConfigurationError as error:
        raise APIError(ErrorKind.INTERNAL, str(error)) from None


def connect_error(to: str, why: str | None, *, proxied: bool = False) -> APIError:
    """The error for a connection `to` a host that failed because of `why`, and a line in the log.

    None means that it took too long. `proxied` tells that an outbound proxy was on the way.
    """
    through = " through the outbound proxy" if proxied else ""
    how = "took too long" if why is None else f"failed: {why}"
    logger.warning("the connection to %s%s %s", to, through, how)
    message = f"The connection to the provider{through} {how}. Try again later."
    if why is None:
        return APIError(ErrorKind.TIMEOUT, message, code="connect_timeout")
    return APIError(ErrorKind.UPSTREAM, message, code="connect_error")
