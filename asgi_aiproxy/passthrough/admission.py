"""Apply the caller's limits to requests of the pass-through proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from asgi_aiproxy.exchange.admission import AdmissionControl
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.prices import SentRequest


async def check_admission(
    admission: AdmissionControl,
    request: ProxyRequest,
    models: Sequence[str],
    fields: Mapping[str, msgspec.Raw] = {},
    body: bytes = b"",
    *,
    session: bool = False,
) -> None:
    """Admit a request by its caller's limits. Raises APIError if they are used up.

    `models` are all that the request may call, `body` is what was read of it before it goes out,
    and `fields` are its members if it is JSON; a WebSocket is a `session`.
    """
    ours = request.target.provider is not None and not request.own_key
    costs = ours and (session or not request.route.free)
    name, route, length = request.target.name, request.route, request.length or 0
    targets = [(name, model) for model in models or ("",)] if costs else []

    def sent() -> Sequence[SentRequest]:
        return [
            SentRequest(*t, route.path, body, fields, length, later=route.batch) for t in targets
        ]

    await admission.admit(route.operation, targets, sent)
