"""Restricts where a key's secret may be sent, for changes over the admin API.

A key's `base_url`, `proxy` and `attributes` decide which server receives its secret. A caller that
may change them could have a secret sent to a server of its own, or make the gateway call servers
that only the gateway can reach. So a stored secret is redirected only for a caller with the scope
`root`, or one that sends the secret again; and an address that is set over the API must be public,
unless it is in a network that the operator has allowed. The configuration is written by the
operator and is not restricted.

Names are looked up when they are set and before a key is tested. (A name that resolves to a private
address only later is not detected: use a firewall for networks that must not be reached.)
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

# The fields of a key that decide where its secret is sent, and in which form.
_WHERE = ("base_url", "proxy", "attributes")
_LOOK_UP_SECONDS = 5.0
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052


class Destinations:
    """Checks the addresses that are given to keys over the admin API.

    `networks` are address ranges that are allowed although they are not public, such as
    `10.0.0.0/8`; None allows all addresses. Raises ConfigurationError for an invalid range.
    """

    def __init__(self, networks: Iterable[str] | None = ()) -> None:
        self._networks = tuple(networks) if networks is not None else None
        check_networks(self._networks or ())

    async def check(self, key: Key, prefix: str = "", before: Key | None = None) -> None:
        """Raise APIError (400) if a key leads to a network that is not allowed.

        The error names the field with the prefix `lead`. Values equal to those of `before` are
        allowed.
        """
        for field in ("proxy", "base_url"):
            url = getattr(key, field)
            kept = before is not None and getattr(before, field) == url
            if url is None or kept or self._networks is None:
                continue
            refused = await self._refused(url)
            if refused:
                raise invalid(
                    f"{prefix}{field}: {refused} is not a public address. The operator can "
                    "allow its "
                    f"network: AdminApp(private_networks=...), admin_private_networks.",
                    f"{prefix}{field}",
                )

    async def check_url(self, url: str) -> None:
        """Raise APIError (400) if a URL leads to a network that is not allowed."""
        refused = await self._refused(url) if self._networks is not None else ""
        if refused:
            raise invalid(f"{refused} is not a public address, and its network is not allowed.")

    async def _refused(self, url: str) -> str:
        """Return the address of a URL's host that is not allowed; empty if all are allowed."""
        host = urlsplit(url).hostname or ""
        for address in await _addresses(host):
            if not _is_public(address) and not in_networks(self._networks or (), address):
                return host if host == address else f"{host} ({address})"
        return ""


def check_redirection(key: Key, fields: Mapping[str, Any], caller: Principal) -> None:
    """Raise APIError (403) if a change would send a stored secret elsewhere, and the caller `by`
    may not do that.
    """
    if "root" in caller.scopes or "secret" in fields:
        return
    for name in _WHERE:
        if name in fields and fields[name] != getattr(key, name):
            message = (
                f"{name}: it decides where the secret of this key is sent. To change it, "
                "use a token with the scope 'root', or also send the secret as 'secret'."
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
    """Return the IP addresses of a host; none if its name cannot be looked up."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOK_UP_SECONDS):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
