"""Multipart bodies: the model is found, and everything else is forwarded unchanged."""

from __future__ import annotations

import asyncio
import json
import tempfile
from typing import Any

import httpx
import pytest

from asgi_aiproxy import (
    HttpxTransport,
    KeyPool,
    OpenAIShim,
    ProviderRouter,
    UsageRecord,
    multipart_forwarder,
)
from asgi_aiproxy.keys import Key
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses

pytestmark = pytest.mark.anyio

MiB = 1024 * 1024
B = b"XbX"


def part(name: str, value: bytes, more: str = "") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return b"--" + B + b"\r\n" + disposition.encode() + value + b"\r\n"


def file(value: bytes, name: str = "file") -> bytes:
    return part(name, value, '; filename="a.wav"\r\nContent-Type: audio/wav')


END = b"--" + B + b"--\r\n"
MODEL = part("model", b"whisper-1")
FAKES = (
    b'\r\n--XbY\r\nContent-Disposition: form-data; name="model"\r\n\r\nfake\r\n--XbY--'
    b"\r\n--Xb\r\n--\r\n\r\nXbX\r\n-XbX--\r\n\r\n"
)


# ── through the app ──────────────────────────────────────────────────────────

FORM = {"content-type": f"multipart/form-data; boundary={B.decode()}"}
PATH = "/v1/audio/transcriptions"
TEXT = b'{"text":"hello"}'


class Place:
    """A shim with an alias, over a scripted provider that accepts uploads."""

    def __init__(self, *steps: Any, **options: Any) -> None:
        self.upstream = Upstream(*(steps or (answers(TEXT),)))
        self.pool = KeyPool([Key("sk-1", id="1")])
        self.records: list[UsageRecord] = []
        router = ProviderRouter(
            {"ears": (OPENAI.using(self.pool), "whisper-1"), "claude": ANTHROPIC.using("sk-2")},
        )
        transport = options.pop("transport", self.upstream.transport)
        self.app = OpenAIShim(router, transport=transport, record=self._record, **options)

    async def _record(self, record: UsageRecord) -> None:
        self.records.append(record)

    async def check(self, outcome: str) -> None:
        """Check that everything is free, and the outcome in the usage record."""
        assert [key.in_flight for key in await self.pool.status()] == [0]
        assert self.upstream.open == 0
        await self.app._recorder.drain()
        assert [record.outcome for record in self.records] == [outcome]


def form(*, model: bytes = b"ears", first: bool = True) -> bytes:
    parts = [part("model", model), file(FAKES), part("response_format", b"json")]
    return b"".join(parts if first else reversed(parts)) + END


@pytest.mark.parametrize("first", [True, False], ids=["model-first", "model-last"])
@pytest.mark.parametrize("size", [1, 50, 10_000])
async def test_a_body_arrives_byte_for_byte_with_the_models_real_name(
    size: int, first: bool
) -> None:
    place = Place()
    body = form(first=first)
    headers = {**FORM, "content-length": str(len(body))}
    async with asgi.opened(place.app, "POST", PATH, headers=headers) as exchange:
        for at in range(0, len(body), size):
            exchange.send_body(body[at : at + size], more=at + size < len(body))
        answer = await exchange.answer()
        await exchange.ended()
    assert (answer.status, answer.body) == (200, TEXT)
    (request,) = place.upstream.requests
    expected = form(model=b"whisper-1", first=first)
    assert request.content == expected
    assert request.headers["content-length"] == str(len(expected))
    assert request.headers["content-type"] == FORM["content-type"]
    assert "transfer-encoding" not in request.headers
    assert str(request.url) == "https://api.openai.com/v1/audio/transcriptions"
    assert answer.header("aiproxy-provider") == "openai"
    await place.check("done")


async def test_a_body_of_unknown_length_is_sent_without_a_length() -> None:
    place = Place()
    answer = await asgi.request(place.app, "POST", PATH, form(), headers=FORM)
    assert answer.status == 200
    assert "content-length" not in place.upstream.requests[0].headers
    assert place.upstream.requests[0].content == form(model=b"whisper-1")


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="XbX"',
        'Multipart/Form-Data; Boundary="XbX"',
        "multipart/form-data;boundary=XbX",
        "multipart/form-data; charset=utf-8; boundary=XbX",
    ],
)
async def test_a_boundary_may_be_spelled_as_the_rfc_allows(content_type: str) -> None:
    place = Place()
    headers = {"content-type": content_type}
    answer = await asgi.request(place.app, "POST", PATH, form(), headers=headers)
    assert answer.status == 200
    assert place.upstream.requests[0].headers["content-type"] == content_type


async def test_a_boundary_may_be_any_that_clients_choose() -> None:
    place = Place()
    body = form().replace(B, b"==a'b+_-.=1==")
    headers = {"content-type": 'multipart/form-data; boundary="==a\'b+_-.=1=="'}
    assert (await asgi.request(place.app, "POST", PATH, body, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("headers", "body", "status", "param"),
    [
        (FORM, file(b"x") + END, 400, "model"),
        (FORM, part("model", b"") + END, 400, "model"),
        (FORM, b"", 400, None),
        (FORM, b"no form at all", 400, None),
        (FORM, form().replace(b"\r\n", b"\n"), 400, None),
        (FORM, part("model", b"\xff") + END, 400, "model"),
        (FORM, MODEL + MODEL + END, 400, "model"),
        ({}, form(), 415, None),
        ({"content-type": "text/plain"}, form(), 415, None),
        ({"content-type": "multipart/form-data"}, form(), 415, None),
        ({"content-type": 'multipart/form-data; boundary=""'}, form(), 415, None),
        ({"content-type": "multipart/mixed; boundary=XbX"}, form(), 415, None),
        ({**FORM, "content-length": "2000000"}, b"", 413, None),
        (FORM, file(b"x" * 1_000_001) + MODEL + END, 413, None),
        (FORM, form(model=b"nobody"), 404, "model"),
        (FORM, form(model=b"claude"), 404, None),
    ],
)
async def test_invalid_uploads_are_refused_without_a_request_to_a_provider(
    headers: dict[str, str], body: bytes, status: int, param: str | None
) -> None:
    place = Place(max_upload=1_000_000)
    answer = await asgi.request(place.app, "POST", PATH, body, headers=headers)
    assert answer.status == status, answer.body
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["param"] == param
    assert place.upstream.requests == []


async def test_a_streamed_body_above_the_limit_is_a_413() -> None:
    place = Place(max_upload=300_000)
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(part("model", b"ears") + file(b"")[:-2], more=True)
        for _ in range(40):
            exchange.send_body(b"x" * 10_000, more=True)
        answer = await exchange.answer()
        await exchange.ended()
    assert answer.status == 413
    await place.check("refused")


async def test_a_second_model_never_reaches_the_provider() -> None:
    # The first one is checked against what the caller may use; a provider may use the last.
    slow = Slow()
    place = Place(transport=HttpxTransport(slow))
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(part("model", b"ears") + file(b"")[:-2], more=True)
        await asyncio.wait_for(slow.reading.wait(), 5)
        exchange.send_body(b"\r\n" + part("model", b"gpt-4o-transcribe") + END)
        answer = await exchange.answer()
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")
    assert b"gpt-4o" not in b"".join(slow.pieces)
    assert slow.closed.is_set()
    await place.check("refused")


class Slow(httpx.AsyncBaseTransport):
    """A provider that reads a request piece by piece, controlled by the test."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reading = asyncio.Event()
        self.closed = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        try:
            async for piece in request.stream:
                self.pieces.append(piece)
                self.reading.set()
        finally:
            self.closed.set()
        return httpx.Response(200, content=TEXT, headers={"content-type": "application/json"})


async def test_a_body_is_forwarded_while_it_arrives() -> None:
    slow = Slow()
    place = Place(transport=HttpxTransport(slow))
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(part("model", b"ears") + file(b"")[:-2], more=True)
        await asyncio.wait_for(slow.reading.wait(), 5)
        slow.reading.clear()
        exchange.send_body(b"first", more=True)
        await asyncio.wait_for(slow.reading.wait(), 5)
        assert b"first" in slow.pieces[-1]
        exchange.send_body(b"\r\n" + END)
        assert (await exchange.answer()).body == TEXT
    await place.check("done")


@pytest.mark.parametrize("model_first", [True, False])
async def test_a_disconnect_in_mid_upload_leaves_nothing_open(model_first: bool) -> None:
    slow = Slow()
    place = Place(transport=HttpxTransport(slow))
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        if model_first:
            exchange.send_body(part("model", b"ears"), more=True)
        exchange.send_body(file(b"half")[:-2], more=True)
        if model_first:
            await asyncio.wait_for(slow.reading.wait(), 5)
        exchange.disconnect()
        await exchange.ended()
        assert exchange._out.empty()
    if model_first:
        await asyncio.wait_for(slow.closed.wait(), 5)
        await place.check("cut")
    else:
        assert not slow.pieces


async def test_a_disconnect_while_waiting_for_the_response_leaves_nothing_open() -> None:
    place = Place(answers(TEXT, before=30.0))
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(form())
        await asyncio.wait_for(place.upstream.requested.wait(), 5)
        exchange.disconnect()
        await exchange.ended()
    await place.check("cut")


async def test_an_upload_is_sent_only_once() -> None:
    place = Place(refuses(503), answers(TEXT))
    answer = await asgi.request(place.app, "POST", PATH, form(), headers=FORM)
    assert answer.status == 503
    assert len(place.upstream.requests) == 1


# ── what comes before the model ──────────────────────────────────────────────


SPOOL = tempfile.SpooledTemporaryFile


class Spools:
    """Watches the temporary files of uploads."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self, max_size: int) -> Any:
        made = SPOOL(max_size)
        self.made.append(made)
        return made


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> Spools:
    spools = Spools()
    monkeypatch.setattr(multipart_forwarder.tempfile, "SpooledTemporaryFile", spools)
    return spools


async def test_a_large_file_before_the_model_is_spooled_to_disk(spools: Spools) -> None:
    slow = Slow()
    place = Place(transport=HttpxTransport(slow))
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(file(b"")[:-2], more=True)
        for number in range(128):
            exchange.send_body(bytes([number]) * 65_536, more=True)
        while len(exchange._in._queue):  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        (kept,) = spools.made
        assert kept._rolled  # on disk
        assert slow.pieces == []  # it is not known yet where to send it
        exchange.send_body(b"\r\n" + part("model", b"ears") + END)
        assert (await exchange.answer()).status == 200
        await exchange.ended()
    sent = b"".join(slow.pieces)
    content = b"".join(bytes([number]) * 65_536 for number in range(128))
    assert sent == file(content) + part("model", b"whisper-1") + END
    assert max(map(len, slow.pieces)) <= MiB // 2
    assert kept.closed
    await place.check("done")


async def test_a_small_file_before_the_model_stays_in_memory(spools: Spools) -> None:
    place = Place()
    body = file(b"x" * (MiB - 1000)) + part("model", b"ears") + END
    assert (await asgi.request(place.app, "POST", PATH, body, headers=FORM)).status == 200
    (kept,) = spools.made
    assert not kept._rolled
    assert kept.closed


async def test_data_after_the_model_is_not_kept(spools: Spools) -> None:
    slow = Slow()
    place = Place(transport=HttpxTransport(slow))
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(part("model", b"ears") + file(b"")[:-2], more=True)
        for _ in range(64):
            exchange.send_body(b"x" * 65_536, more=True)
        exchange.send_body(b"\r\n" + END)
        assert (await exchange.answer()).status == 200
    (kept,) = spools.made
    assert not kept._rolled
    assert sum(map(len, slow.pieces)) > 4 * MiB


@pytest.mark.parametrize("end", ["gone", "refused"])
async def test_the_temporary_file_is_closed_when_the_request_fails(
    spools: Spools, end: str
) -> None:
    place = Place()
    async with asgi.opened(place.app, "POST", PATH, headers=FORM) as exchange:
        exchange.send_body(file(b"x" * 2 * MiB)[:-2], more=True)
        if end == "gone":
            exchange.disconnect()
        else:
            exchange.send_body(b"\r\n" + END)
            assert (await exchange.answer()).status == 400
        await exchange.ended()
    assert [kept.closed for kept in spools.made] == [True]


# ── the same operations as JSON ──────────────────────────────────────────────


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
async def test_an_image_edit_may_be_json(content_type: str) -> None:
    place = Place(answers(b'{"created":1,"data":[]}'))
    body = {"model": "ears", "prompt": "a cat", "images": [{"image_url": "https://x/y.png"}]}
    headers = {"content-type": content_type}
    answer = await asgi.request(place.app, "POST", "/v1/images/edits", body, headers=headers)
    assert answer.status == 200
    assert place.upstream.bodies == [{**body, "model": "whisper-1"}]
    assert place.upstream.requests[0].headers["content-type"] == "application/json"
    assert json.loads(place.upstream.requests[0].content)


@pytest.mark.parametrize(
    "path",
    ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits",
     "/v1/images/variations"],
)  # fmt: skip
async def test_all_operations_that_take_forms_do(path: str) -> None:
    place = Place()
    assert (await asgi.request(place.app, "POST", path, form(), headers=FORM)).status == 200
    assert place.upstream.requests[0].url.path == path
