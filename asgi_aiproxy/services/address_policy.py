"""Where a key's secret may be sent, as far as the admin API decides.

A key's `base_url`, `proxy` and `attributes` decide which server is shown its secret. Who may write
them could have a secret sent to a server of their own, or the gateway call servers that only it can
reach. So a kept secret is sent elsewhere only by `root`, or by who brings the secret again; and an
address set over the API must be public, unless it lies in a network that the operator named. What
the configuration says is the operator's own and is not looked at.

Names are looked up when they are set and before a key is tried. (A name that resolves to a private
address only later is not seen: networks that must not be reached are a firewall's business.)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.ip_ranges import check_networks, in_networks
from asgi_aiproxy.keys import Key
from asgi_aiproxy.principal import Principal

# What decides where a secret goes, and how it is shown there.
_WHERE = ("base_url", "proxy", "attributes")
_LOOK_UP_SECONDS = 5.0
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052


class Destinations:
    """Says which addresses keys may be given over the admin API.

    `networks` are ranges that are not public and allowed all the same, such as `10.0.0.0/8`; None
    allows everything. Raises ConfigurationError for what is no range.
    """

    def __init__(self, networks: Iterable[str] | None = ()) -> None:
        self._networks = tuple(networks) if networks is not None else None
        check_networks(self._networks or ())

    async def check(self, key: Key, lead: str = "", before: Key | None = None) -> None:
        """Raise APIError (400), which names the field after `lead`, if a key leads to a network
        that is not allowed; what it had `before`, it may keep."""
        for field in ("proxy", "base_url"):
            url = getattr(key, field)
            kept = before is not None and getattr(before, field) == url
            if url is None or kept or self._networks is None:
                continue
            refused = await self._refused(url)
            if refused:
                raise invalid(
                    f"{lead}{field}: {refused} is not a public address. The operator can allow its "
                    f"network: AdminApp(private_networks=...), admin_private_networks.",
                    f"{lead}{field}",
                )

    async def _refused(self, url: str) -> str:
        """The address of a URL's host that is not allowed; empty if all are."""
        host = urlsplit(url).hostname or ""
        for address in await _addresses(host):
            if not _is_public(address) and not in_networks(self._networks or (), address):
                return host if host == address else f"{host} ({address})"
        return ""


def check_redirection(key: Key, fields: Mapping[str, Any], by: Principal) -> None:
    """Raise APIError (403) if a change would send a kept secret elsewhere, and `by` may not."""
    if "root" in by.scopes or "secret" in fields:
        return
    for name in _WHERE:
        if name in fields and fields[name] != getattr(key, name):
            message = (
                f"{name}: it decides where the secret of this key is sent. Changing it takes a "
                f"token with the scope 'root', or the secret again: send 'secret', too."
            )
            raise APIError(ErrorKind.FORBIDDEN, message, param=name, code="scope")


def _is_public(text: str) -> bool:
    address = ip_address(text.partition("%")[0])
    inner: IPv4Address | None = None
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
    found = inner if inner is not None else address
    return found.is_global and not found.is_multicast


async def _addresses(host: str) -> list[str]:
    """The addresses of a host; none, if its name cannot be looked up here."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOK_UP_SECONDS):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
