"""IP address ranges that a caller may connect from."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from asgi_aiproxy.errors import ConfigurationError


def check_networks(networks: Iterable[str]) -> None:
    """Raise ConfigurationError unless each is an address, or a range such as `10.0.0.0/8`."""
    for network in networks:
        try:
            ip_network(network, strict=False)
        except ValueError as error:
            raise ConfigurationError(f"Invalid IP address range: {network!r}.") from error


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(network, strict=False) for network in networks)


def in_networks(networks: tuple[str, ...], address: str | None) -> bool:
    """Return whether an address is in one of the ranges; False if it is unknown (None).

    IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`) are treated as IPv4 addresses.
    """
    if address is None:
        return False
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False  # a Unix socket, or a host name
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in _parsed(networks))


def address_or_network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address, which usually belongs to one
    client.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, 64), strict=False))
    return address
