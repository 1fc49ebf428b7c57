"""What protects pages in a browser: response headers, the check of a form's origin, cookies."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import RawHeaders, Scope

SESSION_COOKIE, LANGUAGE_COOKIE = "aiproxy_console", "aiproxy_language"

PAGE_HEADERS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"vary", b"cookie, accept-language"),
]


def content_policy(other_origin: str = "") -> tuple[bytes, bytes]:
    """Return the header with the policy of a page: nothing but its own host, except scripts and
    frames of `other_origin`.
    """
    scripts = f"'self' {other_origin}".rstrip()
    policy = f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self' data:; "
    policy += "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    if other_origin:
        policy += f"; frame-src {other_origin}"
    return b"content-security-policy", policy.encode()


def mount_path(scope: Scope) -> str:
    """Return the path of the mount as it is in URLs: empty at the root, else `/a/b`.

    Hosts differ: most append the mount to `root_path`, Litestar leaves it in `raw_path` only; and a
    proxy may have removed a prefix that is in `root_path`. Never two slashes at the beginning,
    which a browser would take for another host, and no `;`, which would end the path of a cookie.
    """
    root = _segments(scope.get("root_path", ""))
    below = _segments(_before_local_path(scope))
    if not below or root[-len(below) :] == below:
        parts = root
    elif below[: len(root)] == root:
        parts = below
    else:
        parts = root + below
    return "".join("/" + quote(part, safe="-._~!$&'()*+,=:@") for part in parts)


def _before_local_path(scope: Scope) -> str:
    """Return the part of the received path that is before the path below the mount, decoded."""
    local = _asgi.local_path(scope) or "/"
    raw = scope.get("raw_path")
    path = raw.decode("latin-1").partition("?")[0] if raw is not None else quote(scope["path"])
    if path.endswith(local):
        return unquote(path[: -len(local)])
    return unquote(path) if local == "/" else ""


def _segments(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def is_local_path(path: str, mount: str) -> bool:
    """Whether a path to continue with is a page of this mount, not of another host or app."""
    if "\\" in path or any(ord(c) < 33 or ord(c) == 127 for c in path):
        return False
    parts = urlsplit(path)
    plain = not parts.scheme and not parts.netloc and not path.startswith("//")
    dots = any(part in (".", "..") for part in parts.path.lower().replace("%2e", ".").split("/"))
    return plain and not dots and parts.path.startswith(mount + "/")


def is_same_origin(scope: Scope) -> bool:
    """Whether a request was sent by a page of this host.

    By `Sec-Fetch-Site`, else `Origin`, else `Referer`; without any of them it was not. (The scheme
    is not compared: behind a proxy that terminates TLS it may be unknown here.)
    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    fetch_site = _asgi.header(scope, b"sec-fetch-site")
    origin = _asgi.header(scope, b"origin")
    if fetch_site is not None and fetch_site != "same-origin":
        return False
    if origin is None and fetch_site is not None:
        return True
    sender = origin if origin is not None else _asgi.header(scope, b"referer")
    host = _asgi.header(scope, b"host")
    if sender is None or not host:
        return False
    try:
        parts = urlsplit(sender)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def cookie_values(scope: Scope, name: str) -> list[str]:
    """Return all values of a cookie: mounts within each other may each have set one."""
    found = []
    for key, value in scope["headers"]:
        if key == b"cookie":
            for part in value.decode("latin-1").split(";"):
                known, _, text = part.strip().partition("=")
                if known == name and text:
                    found.append(text)
    return found


def set_cookie(
    scope: Scope,
    name: str,
    value: str,
    *,
    seconds: float,
    secure: bool | None = None,
    same_site: Literal["Strict", "Lax"] = "Strict",
) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie for this mount; with 0 seconds, that removes it.

    `secure` is whether it is sent over HTTPS only; None: if this request came over HTTPS.
    """
    cookie: SimpleCookie = SimpleCookie()
    try:
        cookie[name] = value
    except CookieError:
        cookie[name] = ""
    morsel = cookie[name]
    morsel["path"] = mount_path(scope) or "/"
    morsel["max-age"] = str(int(seconds))
    morsel["httponly"] = True
    morsel["samesite"] = same_site
    if secure if secure is not None else scope.get("scheme") == "https":
        morsel["secure"] = True
    return b"set-cookie", morsel.OutputString().encode("latin-1")
