"""Sessions, tags, times and ignored members in usage records, by every way into the gateway."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from asgi_aiproxy import AIShim, PassthroughProxy
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.exchange.attribution import Attribution
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.usage.log import log_usage
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, chat_stream, streams

pytestmark = pytest.mark.anyio

SESSION = "d9b3f1c2-0000-4000-8000-000000000001"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def labels(
    headers: dict[str, str] | None = None,
    principal: Principal = ANONYMOUS,
    attribution: Attribution | None = None,
    **members: Any,
) -> tuple[str, dict[str, str]]:
    raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in members.items()}
    found = (attribution or Attribution()).labels(headers or {}, raw, principal)
    return found.session, found.tags


@pytest.mark.parametrize(
    ("headers", "members", "session"),
    [
        ({}, {}, ""),
        ({"aiproxy-session": "own", "x-claude-code-session-id": "a"}, {"user": "u"}, "own"),
        ({"x-claude-code-session-id": SESSION, "session-id": "b"}, {"user": "u"}, SESSION),
        ({"session-id": "codex"}, {"metadata": {"session_id": "m"}}, "codex"),
        ({}, {"metadata": {"session_id": "m"}, "user": "u"}, "m"),
        ({}, {"metadata": {"user_id": f"user_1_account_2_session_{SESSION}"}}, SESSION),
        ({}, {"metadata": {"user_id": json.dumps({"session_id": SESSION})}}, SESSION),
        ({}, {"metadata": {"user_id": "just-a-user"}, "user": "u"}, "u"),
        ({}, {"metadata": {"session_id": 7}, "user": "u"}, "u"),
        ({}, {"metadata": "text", "user": ["u"]}, ""),
        ({}, {"metadata": {"session_id": "m" * 20_000}, "user": "u"}, "u"),
        ({"session-id": " \x7fa\tb "}, {}, "ab"),
        ({"session-id": "x" * 500}, {}, "x" * 128),
    ],
)
def test_the_session_is_found_where_clients_send_it(
    headers: dict[str, str], members: dict[str, Any], session: str
) -> None:
    assert labels(headers, **members)[0] == session


def test_only_listed_headers_and_members_become_tags() -> None:
    attribution = Attribution(tag_headers={"X-Team": "team"}, tag_metadata=["feature", "tries"])
    metadata = {"feature": "chat", "tries": 3, "secret": "s", "nested": {}}
    headers = {"x-team": "search", "x-other": "o"}
    assert labels(headers, attribution=attribution, metadata=metadata)[1] == {
        "team": "search",
        "feature": "chat",
        "tries": "3",
    }
    assert labels(headers, metadata=metadata)[1] == {}
    assert labels({"x-team": "y" * 999}, attribution=attribution)[1] == {"team": "y" * 128}
    assert labels({"x-team": " "}, attribution=attribution)[1] == {}


def test_a_caller_cannot_replace_the_tags_of_its_principal() -> None:
    attribution = Attribution(tag_headers=["team"])
    principal = Principal("a", tags={"team": "billing", "tier": "gold"})
    assert labels({"team": "search"}, principal, attribution)[1] == {
        "team": "billing",
        "tier": "gold",
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: Attribution(tag_headers=["a=b"]),
        lambda: Attribution(tag_metadata=[""]),
        lambda: Attribution(tag_metadata="team"),
        lambda: Attribution(tag_metadata=[f"tag-{n}" for n in range(17)]),
        lambda: Principal("a", tags={"team": ""}),
        lambda: Principal("a", tags={"a=b": "c"}),
        lambda: Principal("a", tags={"team": "x" * 129}),
        lambda: Principal("a", tags={f"tag-{n}": "x" for n in range(17)}),
    ],
)
def test_invalid_and_too_many_tags_are_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


class Records:
    def __init__(self) -> None:
        self.all: list[UsageRecord] = []

    async def __call__(self, record: UsageRecord) -> None:
        self.all.append(record)


ATTRIBUTION = Attribution(tag_headers={"x-team": "team"}, tag_metadata=["feature"])
HEADERS = {"x-team": "search", "session-id": SESSION, "content-type": "application/json"}
OWN = {SCOPE_KEY: Principal("ann", tags={"tier": "gold"})}


async def recorded(app: Any, records: Records, path: str, body: dict[str, Any]) -> UsageRecord:
    async with app:
        answer = await asgi.request(app, "POST", path, body, headers=HEADERS, **OWN)
        assert answer.status == 200, answer.body
    (record,) = records.all
    return record


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["shim", "translated", "proxy"])
async def test_every_way_in_records_session_tags_and_times(way: str, stream: bool) -> None:
    upstream = Upstream(streams() if stream else answers())
    records = Records()
    options: Any = {
        "transport": upstream.transport,
        "record": records,
        "attribution": ATTRIBUTION,
    }
    provider = OPENAI.using("sk-1")
    app = PassthroughProxy(provider, **options) if way == "proxy" else AIShim(provider, **options)
    body: dict[str, Any] = {**CHAT, "stream": stream, "metadata": {"feature": "chat"}}
    path = "/v1/chat/completions"
    if way == "translated":
        path = "/v1/messages"
        body |= {"max_tokens": 5, "metadata": {"user_id": "u"}, "top_k": 3}
    record = await recorded(app, records, path, body)
    assert record.session == SESSION
    feature = {} if way == "translated" else {"feature": "chat"}
    assert record.tags == {"team": "search", "tier": "gold"} | feature
    assert record.first_byte is not None
    assert record.first_content is not None
    assert record.first_byte <= record.first_content <= record.duration
    assert record.longest_pause <= record.duration
    assert record.ignored == (("top_k",) if way == "translated" else ())
    assert json.loads(msgspec.json.encode(record))["tags"] == record.tags


async def test_the_longest_pause_of_a_stream_is_measured() -> None:
    first, *rest = chat_stream("Hel", "lo")
    content, *rest = rest
    upstream = Upstream(streams(first, 0.5, content, 0.3, *rest))
    records = Records()
    app = AIShim(OPENAI.using("sk-1"), transport=upstream.transport, record=records)
    record = await recorded(app, records, "/v1/chat/completions", {**CHAT, "stream": True})
    assert record.first_content is not None
    assert record.first_content >= 0.5  # before the first content, which is not a pause
    assert 0.2 <= record.longest_pause <= record.duration - record.first_content + 0.05


async def test_an_upload_has_its_labels_from_headers() -> None:
    upstream = Upstream(answers(b'{"text": "Hello"}'))
    records = Records()
    app = AIShim(
        OPENAI.using("sk-1"),
        transport=upstream.transport,
        record=records,
        attribution=ATTRIBUTION,
    )
    form = (
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    )
    headers = {**HEADERS, "content-type": "multipart/form-data; boundary=b"}
    async with app:
        answer = await asgi.request(app, "POST", "/v1/audio/transcriptions", form, headers=headers)
    assert answer.status == 200, answer.body
    assert records.all[0].session == SESSION
    assert records.all[0].tags == {"team": "search"}


async def test_refused_and_failed_exchanges_have_their_labels() -> None:
    records = Records()
    upstream = Upstream(OSError("no route"))
    app = AIShim(
        ANTHROPIC.using("sk-1"),
        transport=upstream.transport,
        record=records,
        attribution=ATTRIBUTION,
        backoff=0.0,
        attempts=1,
    )
    async with app:
        for model in ("claude-sonnet-4-5", ""):
            await asgi.request(
                app, "POST", "/v1/messages", {**CHAT, "max_tokens": 5, "model": model},
                headers=HEADERS,
            )  # fmt: skip
    assert records.all
    assert {record.session for record in records.all} == {SESSION}
    assert {record.first_content for record in records.all} == {None}


async def test_labels_cannot_pose_as_fields_of_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = UsageRecord(id="1", session="a cost=$0", tags={"team": "b status=200"})
    with caplog.at_level("INFO", "asgi_aiproxy.usage"):
        await log_usage(record)
    assert caplog.messages[0].endswith(" session='a cost=$0' tag.team='b status=200'")
