"""Forms that are converted: read by the strict grammar, and written so that any parser agrees."""

from __future__ import annotations

import asyncio
from typing import Any

import multipart
import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.multipart import FormParser
from asgi_aiproxy.operations.forms import form_content, memory_file
from asgi_aiproxy.providers import ELEVENLABS
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers

NAMES = st.text(st.characters(categories=["L", "N"], include_characters='"_[] '), min_size=1)
TEXTS = st.text(max_size=50)
FILES = st.binary(max_size=2000)


async def bytes_of(content: Any) -> bytes:
    return b"".join([piece async for piece in content.stream()])


@settings(max_examples=60)
@given(st.lists(st.tuples(NAMES, TEXTS), max_size=4), FILES, NAMES)
def test_a_form_is_written_so_that_another_parser_reads_the_same(
    fields: list[tuple[str, str]], data: bytes, filename: str
) -> None:
    file = memory_file("file", data, "audio/wav", filename)
    content = form_content(fields, {"file": file})
    body = asyncio.run(bytes_of(content))
    assert len(body) == content.length
    assert asyncio.run(bytes_of(content)) == body  # it can be sent again
    boundary = content.media_type.partition("boundary=")[2]
    parser = multipart.PushMultipartParser(boundary.encode())
    read: list[tuple[str, bytes]] = []
    for event in parser.parse(body):
        if isinstance(event, multipart.MultipartSegment):
            read.append((event.name, b""))
        elif event is not None:
            read[-1] = (read[-1][0], read[-1][1] + bytes(event))
    names = [(name.replace('"', '"'), value.encode()) for name, value in fields]
    assert [value for _, value in read] == [*(value for _, value in names), data]
    assert read[-1][0] == "file"


@settings(max_examples=60)
@given(st.binary(max_size=3000), st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_parts_are_found_wherever_a_form_is_cut(data: bytes, sizes: list[int]) -> None:
    head = b'--b1\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    field = b'--b1\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    data = data.replace(b"b1", b"")
    body = head + data + b"\r\n" + field + b"--b1--\r\n"
    parser = FormParser(b"b1")
    at = 0
    while at < len(body):
        size = sizes[at % len(sizes)]
        parser.feed(body[at : at + size])
        at += size
    parser.close()
    found = [(part.describe()[:2], body[part.start : part.end]) for part in parser.parts]
    assert found == [(("file", "a"), data), (("model", None), b"whisper")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (b'name="language"\r\n\r\n\xff\xfe', "not valid UTF-8"),
        (b'name="language"\r\n\r\n' + b"x" * 70_000, "longer than 65536 bytes"),
    ],
)
async def test_a_field_that_cannot_be_converted_is_refused_by_name(
    part: bytes, message: str
) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    body += b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n--b--\r\n"
    upstream = Upstream(answers())
    app = OpenAIShim(ELEVENLABS.using("k"), transport=upstream.transport)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await asgi.request(app, "POST", "/v1/audio/transcriptions", body, headers=headers)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "language"
    assert message in answer.json["error"]["message"]
    assert upstream.requests == []


@pytest.mark.anyio
async def test_a_form_of_very_many_parts_is_refused() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n' + part * 1000
    app = OpenAIShim(ELEVENLABS.using("k"), transport=Upstream(answers()).transport)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    path = "/v1/audio/transcriptions"
    answer = await asgi.request(app, "POST", path, body + b"--b--\r\n", headers=headers)
    assert answer.status == 400
    assert "more than 1000 parts" in answer.json["error"]["message"]
