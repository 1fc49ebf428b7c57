"""Outbound proxies in turn: the lines of `proxies.txt`, and a router that uses the next one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle
from urllib.parse import quote

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.key import PROXY_SCHEMES, check_proxy_url
from asgi_aiproxy.providers import ModelOffer, Provider, Target


class RotatingProxies:
    """A router to one provider that uses each outbound proxy in turn.

    Arguments:

    - `provider`: answers all models. Keys with a proxy of their own keep it.
    - `urls`: the URLs of the outbound proxies, at least one.

    Raises ConfigurationError for an invalid URL.
    """

    def __init__(self, provider: Provider, urls: Iterable[str]) -> None:
        variants = [provider.using(proxy=url) for url in urls]
        if not variants:
            raise ConfigurationError("RotatingProxies requires at least one URL.")
        self._turns = cycle(variants)

    def targets(self, model: str, provider: str = "") -> Sequence[Target]:
        """Return the provider with the next proxy, for any model."""
        return [replace(target) for target in next(self._turns).targets(model, provider)]

    def models(self) -> tuple[str, ...]:
        """Return no names: the provider serves all its models."""
        return ()

    def model_offers(self) -> tuple[ModelOffer, ...]:
        """Return all models of the provider."""
        return (ModelOffer(next(self._turns)),)


def parse_proxies(text: str) -> list[str]:
    """Return the URLs of the outbound proxies in the text of a `proxies.txt`.

    A line is a URL, `HOST:PORT`, `HOST:PORT:USER:PASSWORD` or `USER:PASSWORD:HOST:PORT`; those
    without a scheme are SOCKS5 proxies. Empty lines and lines that begin with `#` are ignored.
    Raises ConfigurationError, which names the line and does not quote it.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip().lstrip("\ufeff")
        if not entry or entry.startswith("#"):
            continue
        url = entry if "://" in entry else _socks_url(entry)
        try:
            check_proxy_url(url, f"Line {number}")
        except ConfigurationError:
            url = ""
        if not url:
            schemes = ", ".join(f"{scheme}://" for scheme in PROXY_SCHEMES)
            raise ConfigurationError(
                f"Line {number}: must be HOST:PORT, HOST:PORT:USER:PASSWORD, "
                f"USER:PASSWORD:HOST:PORT, or a URL that begins with {schemes}."
            )
        found.append(url)
    return found


def _socks_url(entry: str) -> str:
    """Return the URL of a proxy without a scheme; empty if the entry is invalid."""
    parts = entry.split(":")
    if len(parts) not in (2, 4):
        return ""
    if _is_port(parts[1]):
        host, port, *login = parts
    elif len(parts) == 4 and _is_port(parts[3]):
        *login, host, port = parts
    else:
        return ""
    if not host or "@" in host or "/" in host:
        return ""
    user = ":".join(quote(part, safe="") for part in login)
    return f"socks5://{user}@{host}:{port}" if user else f"socks5://{host}:{port}"


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536
