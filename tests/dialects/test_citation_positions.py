"""Where citations stand: an answer's text may be in several parts, and APIs count differently."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_aiproxy.messages import (
    Citation,
    Message,
    Reasoning,
    Request,
    Response,
    Text,
    fold,
    unfold,
)
from tests.dialects.unusual import openai_responses as responses
from tests.dialects.unusual.case import sse
from tests.support.stream_fixtures import cut, decode, faces

REQUEST = Request(model="m", messages=(Message("user", (Text("Hi"),)),))
# "Hello. Rome is old. So is Athens.", in parts; each citation covers a name.
FIRST, SECOND = "Hello. Rome is old.", " So is Athens."
ROME, ATHENS = (7, 11), (26, 32)


def annotation(start: int, end: int) -> dict[str, Any]:
    place = {"start_index": start, "end_index": end}
    return {"type": "url_citation", "url": "https://a", "title": "A", **place}


def messages() -> list[dict[str, Any]]:
    """Two messages; their annotations count from the beginning of their own texts."""
    parts = [(FIRST, annotation(*ROME)), (SECOND, annotation(7, 13))]
    return [
        {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": [cited]}],
        }
        for number, (text, cited) in enumerate(parts)
    ]


def streamed() -> bytes:
    events: list[dict[str, Any]] = [*responses.CREATED]
    for index, item in enumerate(messages()):
        (part,) = item["content"]
        where = {"item_id": item["id"], "output_index": index, "content_index": 0}
        events += [
            responses.added({**item, "content": []}, index),
            responses.words(part["text"], index, item=item["id"]),
            responses.event(
                "output_text.annotation.added",
                **where,
                annotation_index=0,
                annotation=part["annotations"][0],
            ),
            responses.event("content_part.done", **where, part=part),
            responses.done(item, index),
        ]
    return sse(*events, responses.end(*messages()))


@pytest.mark.parametrize("stream", [True, False])
def test_annotations_of_several_messages_count_from_the_beginning_of_the_answer(
    stream: bool,
) -> None:
    dialect = faces()["openai_responses"]
    if stream:
        events, _ = decode(dialect, cut(dialect.framer("text/event-stream"), [streamed()]))
        response = fold(events)
    else:
        body = json.dumps(responses.end(*messages())["response"]).encode()
        response = dialect.decode_response(body)
    assert cited(response) == [ROME, ATHENS]
    written = json.loads(faces()["openai_chat"].encode_response(response, REQUEST))
    message = written["choices"][0]["message"]
    found = [each["url_citation"] for each in message["annotations"]]
    names = [message["content"][each["start_index"] : each["end_index"]] for each in found]
    assert names == ["Rome", "Athens"]


def cited(response: Response) -> list[tuple[int | None, int | None]]:
    texts = [block for block in response.blocks if isinstance(block, Text)]
    return [(each.start, each.end) for text in texts for each in text.citations]


@pytest.mark.parametrize("stream", [True, False])
def test_annotations_are_written_from_the_beginning_of_their_part(stream: bool) -> None:
    def source(place: tuple[int, int]) -> Citation:
        return Citation(url="https://a", title="A", start=place[0], end=place[1])

    whole = Citation(url="https://b", title="B")  # of all that its text says
    blocks = (Text(FIRST, (source(ROME),)), Reasoning("Hm"), Text(SECOND, (source(ATHENS), whole)))
    response = Response(id="1", model="m", blocks=blocks)
    face = faces()["openai_responses"]
    if stream:
        encoder = face.encoder(REQUEST)
        out = b"".join([encoder.feed(event) for event in unfold(response)])
        body = json.loads(out.splitlines()[-2].removeprefix(b"data: "))["response"]
    else:
        body = json.loads(face.encode_response(response, REQUEST))
    parts = [part for item in body["output"] for part in item.get("content", ())]
    names = [
        part["text"][each["start_index"] : each["end_index"]]
        for part in parts
        for each in part["annotations"]
    ]
    assert names == ["Rome", "Athens", SECOND]
