"""What passes through is held to its caller's limits, too."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from asgi_aiproxy.gate import Gate
from asgi_aiproxy.passthrough.request import Asked

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def ask(
    gate: Gate, asked: Asked, model: str, body: bytes = b"", *, session: bool = False
) -> None:
    """Ask a caller's gate. Raises APIError.

    `body` is what was read of it before it goes out; a WebSocket is a `session`.
    """
    ours = asked.site.provider is not None and not asked.own_key
    costs = ours and (session or not asked.route.free)
    targets = [(asked.site.name, model)] if costs else []
    await gate.admit(asked.route.operation, targets, _members(body), body)


def _members(body: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return _fields(body) if body else {}
    except (ValueError, RecursionError):
        return {}  # no JSON, or none that we can read
