"""Headers with which callers control the gateway: `aiproxy-...`, and the names before them.

| header | earlier name | meaning |
| --- | --- | --- |
| `aiproxy-provider` | `x-provider` | the provider that is to answer |
| `aiproxy-key` | `x-auth-id` | the id of the API key to use |
| `aiproxy-provider-key` | `x-provider-key` | the caller's own API key for the provider |
| `aiproxy-session` | `x-session-affinity` | equal values are served by the same key |

Clients of earlier gateways send the second name: both are accepted, and no upstream is sent either.
A request that has two values for one of them is refused with 400, as any choice would be a guess.
Responses name the key that served under both names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asgi_aiproxy.errors import APIError, invalid

PROVIDER, KEY, PROVIDER_KEY, SESSION = (
    "aiproxy-provider",
    "aiproxy-key",
    "aiproxy-provider-key",
    "aiproxy-session",
)
EARLIER_NAMES = {
    PROVIDER: "x-provider",
    KEY: "x-auth-id",
    PROVIDER_KEY: "x-provider-key",
    SESSION: "x-session-affinity",
}
# The name of each header by each way to write it.
CONTROL_HEADERS: Mapping[str, str] = {
    written: name for name, earlier in EARLIER_NAMES.items() for written in (name, earlier)
}
_BY_BYTES = {written.encode(): name for written, name in CONTROL_HEADERS.items()}
KEY_HEADERS = frozenset({KEY.encode(), EARLIER_NAMES[KEY].encode()})
PROVIDER_KEY_HEADERS = frozenset({PROVIDER_KEY.encode(), EARLIER_NAMES[PROVIDER_KEY].encode()})


def control_header(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    """Return the value of a control header by either of its names; empty if it is not sent.

    `name` is the present name, `headers` are those of an ASGI scope. Raises APIError (400) if the
    request has two values for it.
    """
    found: dict[str, str] = {}
    for written, value in headers:
        if _BY_BYTES.get(written) == name:
            add_control_header(found, written, value)
    return found.get(name, "")


def add_control_header(found: dict[str, str], written: bytes, value: bytes) -> None:
    """Add a control header to `found` by its present name. Raises APIError on a second value."""
    name, text = _BY_BYTES[written], value.decode("latin-1")
    if found.setdefault(name, text) != text:
        raise conflicting_values_error(name)


def conflicting_values_error(name: str) -> APIError:
    """Return the error for a control header with two values, which are not quoted."""
    return invalid(
        f"The request has two values for the header {name!r}, which may also be written "
        f"{EARLIER_NAMES[name]!r}: send one of them.",
        name,
        "conflicting_headers",
    )


def key_headers(key_id: str) -> list[tuple[bytes, bytes]]:
    """Return the response headers that name the key that served; none without a key."""
    if not key_id:
        return []
    value = key_id.encode("latin-1", "replace")
    return [(b"aiproxy-key", value), (b"x-auth-id", value)]
