"""A test kit: an offline mock of every provider, whose answers and faults are scripted by a test.

::

    mock = MockProvider()
    mock.script(Fault.rate_limited("seconds"), Answer("Second time lucky."))
    async with serve(mock) as url:
        ...  # point the code under test at `url`
    assert [request.path for request in mock.requests] == ["/v1/chat/completions"] * 2
"""

from __future__ import annotations

from asgi_aiproxy.testing.answers import Answer
from asgi_aiproxy.testing.faults import Fault
from asgi_aiproxy.testing.provider import MockProvider
from asgi_aiproxy.testing.received import ReceivedRequest
from asgi_aiproxy.testing.server import serve, serve_in_thread

__all__ = [
    "Answer",
    "Fault",
    "MockProvider",
    "ReceivedRequest",
    "serve",
    "serve_in_thread",
]
