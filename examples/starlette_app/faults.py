"""Gateways in front of vendors that fail, for the console's playground."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import Answer, Fault, MockProvider

FAULTS = {
    "429 with retry-after": Fault.rate_limited("seconds", seconds=30),
    "500 of the vendor": Fault.status(500, "The vendor is out of order."),
    "overloaded in the first event": Fault.overloaded_first(),
    "an error after three events": Fault.error_after(3),
    "the connection is cut after three events": Fault.dies_after(3),
    "a block page as HTML": Fault.html(),
    "no JSON": Fault.garbage(),
}


def faulty_vendors(answer: Answer) -> Any:
    """An ASGI app with mock vendors, each with one fault, at `/0`, `/1` ..."""
    mocks = {}
    for number, fault in enumerate(FAULTS.values()):
        mocks[str(number)] = MockProvider(answer)
        mocks[str(number)].always(fault)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number, _, rest = scope.get("path", "/0").removeprefix("/").partition("/")
        path = f"/{rest}"
        await mocks[number]({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return app


def faulty_gateways(url: str) -> dict[str, OpenAIShim]:
    """A gateway in front of each of these vendors, by the name of the fault."""
    return {
        name: OpenAIShim(OPENAI.using("sk-demo", base_url=f"{url}/{number}/v1"), attempts=1)
        for number, name in enumerate(FAULTS)
    }
