"""Rewrite addresses of the upstream in response headers, so that clients reach them through the
proxy.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from asgi_aiproxy.credentials import strip_from_query
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.providers.vendor_headers import UPLOAD_ADDRESS_HEADERS


def rewrite_location(name: str, location: str, request: ProxyRequest, key: Key | None) -> str:
    """Return a location below the upstream's base URL as one below the mount.

    Other locations stay unchanged. Clients send no key to some upload addresses: so these contain
    the caller's own token. A key of the pool is never left in a location.
    """
    if key is not None and not request.own_key:
        location = _without_secret(location, key.secret)
    found = _below_mount(location, request, key)
    if found != location and name in UPLOAD_ADDRESS_HEADERS and (token := request.token):
        found += f"{'&' if '?' in found else '?'}key={quote(token, safe='')}"
    return found


def _without_secret(location: str, secret: str) -> str:
    """Return a location without the parameters that contain a secret."""
    before, separator, after = location.partition("?")
    query, hash_, fragment = after.partition("#")
    remaining = strip_from_query(query.encode(), frozenset({secret})).decode()
    if remaining == query:
        return location
    return f"{before}{separator if remaining else ''}{remaining}{hash_}{fragment}"


def _below_mount(location: str, request: ProxyRequest, key: Key | None) -> str:
    base = urlsplit(request.target.base(key))
    try:
        parts = urlsplit(location)
        same = (parts.scheme, parts.netloc.lower()) == (base.scheme, base.netloc.lower())
    except ValueError:
        return location
    rooted = not parts.scheme and not parts.netloc and location.startswith("/")
    if not same and not rooted:
        return location
    prefix = request.forwarded_info.prefix
    if rooted and (not prefix or parts.path == prefix or parts.path.startswith(prefix + "/")):
        return location  # the upstream knows its mount, or the location is the same in both
    path = parts.path
    if request.target.provider is None:
        # Paths of an application are those below its base URL.
        if path != base.path and not path.startswith(base.path.rstrip("/") + "/"):
            return location
        path = path[len(base.path.rstrip("/")) :]
    origin = (
        f"{request.forwarded_info.scheme}://{request.forwarded_info.host}"
        if same and request.forwarded_info.host
        else ""
    )
    rest = location[location.index(parts.path) + len(parts.path) :] if parts.path else ""
    return f"{origin}{prefix}{path}{rest}"
