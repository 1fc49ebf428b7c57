"""The official `openai` package: responses that refer to earlier ones, with each vendor behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from openai.types.responses.response_item_list import ResponseItemList

from asgi_aiproxy import (
    Authenticate,
    Key,
    KeyPool,
    MemoryStore,
    OpenAIShim,
    ProviderRouter,
    ResponseState,
    UsageRecord,
)
from asgi_aiproxy.keys.encryption import Sealer
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.stores import Store
from asgi_aiproxy.stores.redis import RedisStore
from asgi_aiproxy.testing import Answer, MockProvider, serve
from tests.clients.conftest import MODELS, VENDORS
from tests.clients.test_openai_responses import TOOLS, WEATHER
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

TOKENS = {
    "token-a": Principal("a", account="one"),
    "token-a2": Principal("a2", account="one"),
    "token-b": Principal("b"),
    "token-limited": Principal("c", models=("claude-*",)),
}


@dataclass
class Place:
    """A gateway in front of mocks of three vendors."""

    mock: MockProvider
    url: str
    store: Store | None
    records: list[UsageRecord] = field(default_factory=list)

    def client(self, token: str = "token-a") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0)

    def sent(self, number: int = -1) -> str:
        return self.mock.requests[number].body.decode()

    def secret(self, number: int = -1) -> str:
        (secret,) = self.mock.requests[number].secrets
        return secret


Make = Callable[..., Any]


@asynccontextmanager
async def place(
    store: Store | None = None, *, state: ResponseState | None = None, shared: Any = None
) -> AsyncIterator[Place]:
    """`shared` is the mock of another gateway."""
    mock = shared if shared is not None else MockProvider()
    async with serve(mock) as vendors:
        keys = [Key(f"sk-openai-{n}", id=f"k{n}") for n in range(4)]
        rows = {
            "openai": OPENAI.using(KeyPool(keys, strategy="round_robin"), base_url=vendors + "/v1"),
            "anthropic": ANTHROPIC.using("sk-anthropic", base_url=vendors),
            "gemini": GEMINI.using("sk-gemini", base_url=vendors),
        }
        routes: Any = {MODELS[name]: row for name, row in rows.items()}
        router = ProviderRouter({**routes, "either": [rows["anthropic"], rows["openai"]]})
        found = Place(mock, "", store)

        async def sink(record: UsageRecord) -> None:
            found.records.append(record)

        shim = OpenAIShim(router, attempts=1, record=sink, response_state=state)
        app = Authenticate(shim, verify=static_tokens(TOKENS))
        async with serve(app) as url:
            found.url = url
            yield found


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("redis_url")
    async with RedisStore(url, prefix=f"test-{uuid.uuid4().hex}", timeout=5.0) as made:
        yield made


def stash(store: Store, **options: Any) -> ResponseState:
    return ResponseState(store, stash=True, sealer=Sealer(Sealer.generate()), **options)


@pytest.fixture
async def kept(store: Store) -> AsyncIterator[Place]:
    async with place(store, state=stash(store)) as found:
        yield found


async def create(client: openai.AsyncOpenAI, *, stream: bool = False, **members: Any) -> Response:
    """A response, whole or streamed."""
    if not stream:
        return await client.responses.create(**members)
    events = [event async for event in await client.responses.create(**members, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    return last.response


STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


# the stash, over any vendor


@VENDORS
@STREAMS
async def test_a_tool_loop_by_ids(kept: Place, vendor: str, stream: bool) -> None:
    kept.mock.script(Answer(tool_calls=(WEATHER,)), Answer("It rains."), Answer("Bye."))
    requested: Any = {"model": MODELS[vendor], "tools": TOOLS, "stream": stream}
    async with kept.client() as client:
        first = await create(client, **requested, input="Weather?", instructions="Be brief.")
        assert first.to_dict()["store"] is True
        (call,) = [item for item in first.output if item.type == "function_call"]
        result: Any = {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": "It is raining",
        }
        second = await create(client, **requested, input=[result], previous_response_id=first.id)
        assert (second.output_text, second.previous_response_id) == ("It rains.", first.id)
        third = await create(client, **requested, input="Thanks", previous_response_id=second.id)
        assert third.output_text == "Bye."
        # Instructions are those of one request.
        assert "Be brief." not in kept.sent()
    if vendor == "openai":  # which keeps responses itself
        assert f'"previous_response_id":"{second.id}"' in kept.sent().replace('": "', '":"')
        assert len({kept.secret(n) for n in range(3)}) == 1
    else:
        body = kept.sent()
        order = ["Weather?", "Paris", "It is raining", "It rains.", "Thanks"]
        assert [body.index(text) for text in order] == sorted(body.index(text) for text in order)
        assert "previous_response_id" not in body


@VENDORS
async def test_a_response_can_be_retrieved_its_input_listed_and_deleted(
    kept: Place, vendor: str
) -> None:
    async with kept.client() as client:
        first = await client.responses.create(model=MODELS[vendor], input="Hi", metadata={"a": "b"})
        found = await client.responses.retrieve(first.id)
        assert found.to_dict() == first.to_dict()
        items = await client.responses.input_items.list(first.id)
        assert len(items.data) == 1
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(
                model=MODELS[vendor], input="Hi", previous_response_id=first.id
            )
        assert caught.value.code == "previous_response_not_found"


async def test_input_items_come_in_pages(kept: Place) -> None:
    model = MODELS["anthropic"]
    kept.mock.script(Answer(tool_calls=(WEATHER,)))
    async with kept.client() as client:
        first = await client.responses.create(model=model, input="Weather?", tools=TOOLS)
        call = first.output[-1]
        assert call.type == "function_call"
        items: Any = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": "Hm."},
            {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        ]
        second = await client.responses.create(
            model=model, input=items, tools=TOOLS, previous_response_id=first.id
        )
        pages = client.responses.input_items.list(second.id, limit=2, order="asc")
        listed = [item async for item in pages]
        assert [item.type for item in listed] == [
            "message",
            "function_call",
            "function_call_output",
            "message",
            "message",
            "message",
        ]
        assert len({item.id for item in listed}) == 6
        raw = await client.responses.input_items.with_raw_response.list(second.id, limit=100)
        page = ResponseItemList.model_validate_json(raw.content)  # strictly
        assert [item.id for item in page.data] == [item.id for item in reversed(listed)]
        assert (page.has_more, page.first_id) == (False, listed[-1].id)
        for wrong in ({"limit": 0}, {"limit": 101}, {"after": "x"}, {"order": "up"}):
            with pytest.raises(openai.BadRequestError):
                await client.responses.input_items.list(second.id, extra_query=wrong)


async def test_a_conversation_goes_on_at_other_vendors(kept: Place) -> None:
    order = ["openai", "anthropic", "gemini", "openai", "anthropic"]
    said: list[str] = []
    previous = None
    async with kept.client() as client:
        for number, vendor in enumerate(order):
            kept.mock.script(Answer(f"answer {number}"))
            said.append(f"question {number}")
            response = await client.responses.create(
                model=MODELS[vendor], input=said[-1], previous_response_id=previous
            )
            assert response.previous_response_id == previous
            body = kept.sent()
            assert all(body.count(text) == 1 for text in said), (vendor, body)
            assert [body.index(text) for text in said] == sorted(body.index(t) for t in said)
            said.append(f"answer {number}")
            previous = response.id


@VENDORS
@pytest.mark.parametrize("stored", [True, False, None])
async def test_nothing_of_a_request_to_store_is_ignored(
    kept: Place, vendor: str, stored: bool | None
) -> None:
    async with kept.client() as client:
        raw = await client.responses.with_raw_response.create(
            model=MODELS[vendor], input="Hi", store=stored
        )
        assert "aiproxy-ignored" not in raw.headers
        assert raw.parse().to_dict()["store"] is (stored is not False)
        if vendor != "openai":
            assert "store" not in kept.mock.requests[-1].members


@VENDORS
async def test_what_is_not_to_be_stored_is_not_kept(kept: Place, vendor: str) -> None:
    async with kept.client() as client:
        model = MODELS[vendor]
        first = await client.responses.create(model=model, input="Hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model=model, input="Hi", previous_response_id=first.id)


@VENDORS
async def test_a_response_of_another_tenant_does_not_exist(kept: Place, vendor: str) -> None:
    model = MODELS[vendor]
    async with kept.client() as own, kept.client("token-a2") as same, kept.client("token-b") as b:
        first = await own.responses.create(model=model, input="Hi")
        await same.responses.retrieve(first.id)  # of the same account
        count = len(kept.mock.requests)

        async def refused(call: Awaitable[Any]) -> str:
            with pytest.raises(openai.NotFoundError) as caught:
                await call
            error = caught.value
            assert len(kept.mock.requests) == count
            return f"{error.status_code} {error.code} {error.message}"

        for id in (first.id, "resp_" + "0" * 48):
            shown = [
                await refused(b.responses.retrieve(id)),
                await refused(b.responses.delete(id)),
                await refused(b.responses.cancel(id)),
                await refused(b.responses.input_items.list(id)),
                await refused(b.responses.create(model=model, input="Hi", previous_response_id=id)),
            ]
            shown = [text.replace(id, "ID") for text in shown]
            if id == first.id:
                expected = shown
        assert shown == expected
        await own.responses.retrieve(first.id)


@VENDORS
async def test_another_worker_knows_the_response(store: Store, vendor: str) -> None:
    key = Sealer(Sealer.generate())
    states = [ResponseState(store, stash=True, sealer=key) for _ in range(2)]
    mock, model = MockProvider(), MODELS[vendor]
    worlds = [place(store, state=state, shared=mock) for state in states]
    async with worlds[0] as one, worlds[1] as other, one.client() as client:
        first = await client.responses.create(model=model, input="Hi")
        async with other.client() as elsewhere:
            second = await elsewhere.responses.create(
                model=model, input="And?", previous_response_id=first.id
            )
        assert second.status == "completed"
        assert one.secret(-1) == one.secret(0)


async def test_the_store_holds_nothing_readable() -> None:
    store = MemoryStore()
    async with place(store, state=stash(store)) as found, found.client() as client:
        found.mock.always(Answer("answered"))
        text = "a sentence that is searched for"
        response = await client.responses.create(model=MODELS["anthropic"], input=text)
        ((name, (_, value)),) = store._entries._entries.items()
        assert text.encode() not in value
        assert b"answered" not in value
        assert b"token-a" not in value + name.encode()
        assert response.id in name
        # Under the name of another caller it is unreadable.
        other = ResponseState(store, stash=True, sealer=Sealer(Sealer.generate()))
        assert await other.get(TOKENS["token-a"], response.id) is None


async def test_a_response_expires(store: Store) -> None:
    async with place(store, state=stash(store, seconds=0.2)) as found, found.client() as client:
        first = await client.responses.create(model=MODELS["gemini"], input="Hi")
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.responses.retrieve(first.id)
                except openai.NotFoundError:
                    break


async def test_a_conversation_above_the_size_limit_is_not_kept_and_says_so(store: Store) -> None:
    small = stash(store, max_bytes=2_000)
    async with place(store, state=small) as found, found.client() as client:
        for stream in (False, True):
            response = await create(
                client, model=MODELS["gemini"], input="x" * 3_000, stream=stream
            )
            assert response.to_dict()["store"] is False
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)


async def test_a_model_that_the_caller_may_not_use_is_refused_for_a_continuation(
    kept: Place,
) -> None:
    async with kept.client("token-limited") as client:
        first = await client.responses.create(model=MODELS["anthropic"], input="Hi")
        with pytest.raises(openai.PermissionDeniedError):
            await client.responses.create(
                model=MODELS["gemini"], input="Hi", previous_response_id=first.id
            )
        await until(lambda: len(kept.records) == 2)
    assert kept.records[-1].outcome == "refused"


async def test_odd_references_are_refused(kept: Place) -> None:
    model = MODELS["anthropic"]
    async with kept.client() as client:
        wrong: list[dict[str, Any]] = [
            {"previous_response_id": 1},
            {"previous_response_id": "resp_1", "conversation": "conv_1"},
            {"conversation": {"id": 1}},
            {"store": "yes"},
        ]
        for members in wrong:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(model=model, input="Hi", extra_body=members)
            assert caught.value.param
        for id in ("x" * 3_000, "é", "a b", "a\nb", "../x"):
            with pytest.raises(openai.NotFoundError):
                await client.responses.create(model=model, input="Hi", previous_response_id=id)
        response = await client.responses.create(model=model, input="Hi")
        for query in ({"starting_after": "2"}, {"stream": "true", "starting_after": "x"}):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.retrieve(response.id, extra_query=query)
            assert caught.value.param == "starting_after"
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(response.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=model, input="Hi", background=True)
        assert caught.value.param == "background"


# without a stash


@STREAMS
async def test_openai_continues_with_the_key_that_made_the_response(stream: bool) -> None:
    async with place() as found, found.client() as client:
        model = MODELS["openai"]
        firsts = [
            await create(client, model=model, input=f"Hi {n}", stream=stream) for n in range(4)
        ]
        assert len({found.secret(n) for n in range(4)}) == 4
        for number, first in enumerate(firsts):
            second = await create(
                client, model=model, input="And?", previous_response_id=first.id, stream=stream
            )
            assert second.previous_response_id == first.id
            assert found.secret() == found.secret(number)
            retrieved = await client.responses.retrieve(first.id)
            assert (retrieved.id, found.secret()) == (first.id, found.secret(number))
            await client.responses.input_items.list(first.id, limit=3, order="asc")
            assert found.mock.requests[-1].query == "limit=3&order=asc"
            await client.responses.delete(first.id)
            assert found.secret() == found.secret(number)
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(first.id)
        assert {record.outcome for record in found.records} == {"done"}
        kinds = [record.operation for record in found.records]
        assert kinds.count("responses.retrieve") == 4
        assert not [r for r in found.records if r.operation != "responses" and r.usage]


async def test_a_background_response_is_polled_and_cancelled_with_its_key() -> None:
    async with place() as found, found.client() as client, found.client("token-b") as other:
        model = MODELS["openai"]
        first = await client.responses.create(model=model, input="Hi", background=True)
        assert first.status == "queued"
        done = await client.responses.retrieve(first.id)
        assert (done.status, done.output_text) == ("completed", "Hello from the mock.")
        with pytest.raises(openai.NotFoundError):
            await other.responses.cancel(first.id)
        assert (await client.responses.cancel(first.id)).status == "cancelled"
        assert (await client.responses.retrieve(first.id)).status == "cancelled"
        assert len({found.secret(n) for n in range(len(found.mock.requests))}) == 1


@pytest.mark.parametrize("vendor", ["anthropic", "gemini"])
async def test_without_a_stash_the_error_names_the_option(vendor: str) -> None:
    async with place() as found, found.client() as client:
        model = MODELS[vendor]
        first = await client.responses.create(model=model, input="Hi")
        assert first.to_dict()["store"] is False
        members: list[dict[str, Any]] = [
            {"previous_response_id": first.id},
            {"conversation": "conv_1"},
        ]
        for references in members:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(model=model, input="Hi", extra_body=references)
            assert caught.value.param in references
            assert "responses.stash" in caught.value.message
        with pytest.raises(openai.NotFoundError) as missing:
            await client.responses.retrieve(first.id)
        assert "responses.stash" in missing.value.message
        openais = await client.responses.create(model=MODELS["openai"], input="Hi")
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=model, input="Hi", previous_response_id=openais.id)
        assert "responses.stash" in caught.value.message


async def test_of_several_providers_the_one_that_keeps_the_response_continues_it() -> None:
    async with place() as found, found.client() as client:
        first = await client.responses.create(model=MODELS["openai"], input="Hi")
        second = await client.responses.create(
            model="either", input="And?", previous_response_id=first.id
        )
        assert second.previous_response_id == first.id
        assert found.secret() == found.secret(0)


async def test_a_removed_key_is_no_way_to_a_response() -> None:
    store = MemoryStore()
    async with place(store, state=stash(store)) as found, found.client() as client:
        model = MODELS["openai"]
        found.mock.script(Answer("one"))
        first = await client.responses.create(model=model, input="Hi there")
        stored = await stash(store).get(TOKENS["token-a"], first.id)
        assert stored is None  # another sealing key
        found.mock.reset()  # as if the account were gone
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model=model, input="And?", previous_response_id=first.id)


# items by reference, as the AI SDK sends them


def reference(item: Any) -> Any:
    return {"type": "item_reference", "id": item.id}


@VENDORS
@STREAMS
async def test_a_tool_loop_with_references_to_items(kept: Place, vendor: str, stream: bool) -> None:
    said = Answer("Hm.", reasoning="Let me see.", signature="c2lnbmVk", tool_calls=(WEATHER,))
    kept.mock.script(said, Answer("It rains."))
    requested: Any = {"model": MODELS[vendor], "tools": TOOLS, "stream": stream}
    question: Any = {"role": "user", "content": "Weather?"}
    async with kept.client() as client:
        first = await create(client, **requested, input=[question])
        call = next(item for item in first.output if item.type == "function_call")
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
        items = [question, *map(reference, first.output), result]
        second = await create(client, **requested, input=items)
        assert second.output_text == "It rains."
    if vendor == "openai":
        assert "item_reference" in kept.sent()  # it keeps its items itself
    else:
        assert "item_reference" not in kept.sent()
        assert "c2lnbmVk" in kept.sent()
        assert "weather" in kept.sent()


async def test_a_reference_to_an_item_of_another_caller_leads_nowhere(kept: Place) -> None:
    requested: Any = {"model": MODELS["anthropic"]}
    async with kept.client() as client, kept.client("token-b") as other:
        first = await create(client, **requested, input="Hi")
        items = [reference(first.output[0]), {"role": "user", "content": "And?"}]
        with pytest.raises(openai.BadRequestError, match=r"input\[0\]") as stolen:
            await create(other, **requested, input=items)
        items[0] = {"type": "item_reference", "id": "msg_" + "0" * 52}
        with pytest.raises(openai.BadRequestError, match=r"input\[0\]") as unknown:
            await create(other, **requested, input=items)
    assert stolen.value.message == unknown.value.message


async def test_items_by_reference_count_towards_the_limit_of_input(store: Store) -> None:
    async with (
        place(store, state=stash(store, max_bytes=100_000)) as small,
        small.client() as client,
    ):
        small.mock.script(Answer("x" * 60_000))
        requested: Any = {"model": MODELS["anthropic"]}
        first = await create(client, **requested, input="Hi")
        items = [reference(first.output[0])] * 2
        with pytest.raises(openai.APIStatusError) as caught:
            await create(client, **requested, input=[*items, {"role": "user", "content": "And?"}])
    assert (caught.value.status_code, caught.value.code) == (413, "conversation_too_large")


async def test_without_a_stash_a_reference_says_what_to_do(store: Store) -> None:
    async with place(store, state=ResponseState(store)) as found, found.client() as client:
        items: Any = [{"type": "item_reference", "id": "msg_1"}]
        with pytest.raises(openai.BadRequestError, match="store=false"):
            await create(client, model=MODELS["anthropic"], input=items)
