"""Required behaviour of an HTTP proxy for connections with more than one request."""

from __future__ import annotations

import pytest

from tests.passthrough.test_conformance import OK, ask, once, sending
from tests.support.passthrough_upstream import LIMITS, Frontend, behind, converse
from tests.support.socket_server import closed_port

pytestmark = pytest.mark.anyio


async def test_no_server_listens(frontend: Frontend) -> None:
    async with behind(frontend, sending(OK)) as at:
        with closed_port() as port:
            from asgi_aiproxy import PassthroughProxy

            frontend.app = PassthroughProxy(f"http://127.0.0.1:{port}", transport=at.transport)
            got = await converse(await at.caller(), ask("GET /x"), "GET")
    assert got.got.status == 502


async def test_an_obsolete_folded_header_is_refused_or_is_one_line(frontend: Frontend) -> None:
    async with behind(frontend, sending(OK)) as at:
        await converse(await at.caller(), ask("GET /x", "X-A: a", "\tX-Evil: 1"), "GET")
        for request in at.requests:
            assert request.all("x-evil") == []
            assert "\n" not in str(request.all("x-a"))


async def test_bytes_after_a_request_are_not_part_of_it(frontend: Frontend) -> None:
    async with behind(frontend, sending(OK)) as at:
        caller = await at.caller()
        got = await converse(caller, ask("POST /x", body=b"hello") + ask("GET /y"), "POST")
        assert got.got.body == b"ok"
        assert (await caller.answer()).body == b"ok"
        assert [r.line for r in at.requests] == ["POST /x HTTP/1.1", "GET /y HTTP/1.1"]


async def test_an_idempotent_request_on_a_dead_idle_connection_is_sent_again(
    frontend: Frontend,
) -> None:
    async with behind(frontend, once(OK), timeouts=LIMITS) as at:
        for _ in range(3):
            got = await converse(await at.caller(), ask("GET /x"), "GET")
            assert got.got.status == 200
        assert len(at.wire.lines) == 3


async def test_other_requests_on_a_dead_idle_connection_fail(frontend: Frontend) -> None:
    async with behind(frontend, once(OK)) as at:
        first = await converse(await at.caller(), ask("POST /x", body=b"1"), "POST")
        second = await converse(await at.caller(), ask("POST /x", body=b"2"), "POST")
        assert (first.got.status, second.got.status) == (200, 502)
        assert [request.body for request in at.requests] == [b"1", b"2"]


async def test_a_connection_serves_many_requests(frontend: Frontend) -> None:
    async with behind(frontend, sending(OK)) as at:
        caller = await at.caller()
        for _ in range(20):
            assert (await converse(caller, ask("GET /x"), "GET")).got.body == b"ok"
        assert len(at.wire.lines) == 1
