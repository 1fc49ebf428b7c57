"""Conversations: lists of items that responses of any vendor read and add to."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai.types.conversations import Conversation, ConversationItemList

from asgi_aiproxy import MemoryStore, ResponseState
from asgi_aiproxy.keys.encryption import Sealer
from asgi_aiproxy.stores import Store
from asgi_aiproxy.testing import Answer
from tests.clients.conftest import MODELS, VENDORS
from tests.clients.test_openai_responses import TOOLS, WEATHER
from tests.clients.test_openai_stateful import STREAMS, create, place, stash, store

__all__ = ["store"]  # a fixture

pytestmark = pytest.mark.anyio


@VENDORS
@STREAMS
async def test_a_response_reads_and_extends_its_conversation(
    store: Store, vendor: str, stream: bool
) -> None:
    async with place(store, state=stash(store)) as found, found.client() as client:
        found.mock.script(Answer(tool_calls=(WEATHER,)), Answer("It rains."), Answer("Bye."))
        first_item: Any = {"role": "user", "content": "My name is Ann."}
        made = await client.conversations.create(items=[first_item], metadata={"a": "b"})
        requested: Any = {"model": MODELS[vendor], "tools": TOOLS, "stream": stream}
        requested["conversation"] = made.id
        first = await create(client, **requested, input="Weather?")
        assert first.conversation is not None
        assert first.conversation.id == made.id
        call: Any = first.output[-1]
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        await create(client, **requested, input=[result])
        await create(client, **requested, input="Thanks")
        body = found.sent()
        order = ["My name is Ann.", "Weather?", "Paris", '"rain"', "It rains.", "Thanks"]
        order[3] = "rain"
        assert [body.index(text) for text in order] == sorted(body.index(text) for text in order)
        assert made.id not in body
        items = [item async for item in client.conversations.items.list(made.id, limit=3)]
        kinds = [item.type for item in items]
        assert kinds.count("message") == 5
        assert {"function_call", "function_call_output"} < set(kinds)


async def test_a_conversation_goes_on_at_other_vendors(store: Store) -> None:
    async with place(store, state=stash(store)) as found, found.client() as client:
        made = await client.conversations.create()
        said: list[str] = []
        for number, vendor in enumerate(["openai", "anthropic", "gemini", "openai"]):
            found.mock.script(Answer(f"answer {number}"))
            said.append(f"question {number}")
            await create(client, model=MODELS[vendor], input=said[-1], conversation=made.id)
            body = found.sent()
            assert all(body.count(text) == 1 for text in said)
            said.append(f"answer {number}")


async def test_conversations_are_objects_of_their_own() -> None:
    memory = MemoryStore()
    async with place(memory, state=stash(memory)) as found, found.client() as client:
        raw = await client.conversations.with_raw_response.create(metadata={"a": "b"})
        made = Conversation.model_validate_json(raw.content)  # strictly
        assert (made.metadata, made.object) == ({"a": "b"}, "conversation")
        changed = await client.conversations.update(made.id, metadata={"c": "d"})
        assert (await client.conversations.retrieve(made.id)) == changed
        assert changed.metadata == {"c": "d"}
        item: Any = {"role": "user", "content": "Hi"}
        added = await client.conversations.items.with_raw_response.create(
            made.id, items=[item, item]
        )
        page = ConversationItemList.model_validate_json(added.content)
        assert len({each.id for each in page.data}) == 2
        deleted = await client.conversations.delete(made.id)
        assert (deleted.deleted, deleted.id) == (True, made.id)
        for call in (
            client.conversations.retrieve(made.id),
            client.conversations.delete(made.id),
            client.conversations.update(made.id, metadata={}),
            client.conversations.items.create(made.id, items=[item]),
            client.responses.create(model=MODELS["gemini"], input="Hi", conversation=made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await call
        with pytest.raises(openai.NotFoundError):
            await client.conversations.items.list(made.id)
        for wrong in ({"metadata": 1}, {"items": 1}, {"metadata": {"a": 1}}):
            with pytest.raises(openai.BadRequestError):
                await client.conversations.create(extra_body=wrong)
        assert found.mock.requests == []


async def test_an_item_is_read_and_deleted_alone(store: Store) -> None:
    async with place(store, state=stash(store)) as found, found.client() as client:
        items: Any = [{"role": "user", "content": f"fact {n}"} for n in range(3)]
        made = await client.conversations.create(items=items[:2])
        await client.conversations.items.create(made.id, items=items[2:])
        listed = (await client.conversations.items.list(made.id, order="asc")).data
        page = await client.conversations.items.list(made.id, order="asc", limit=1)
        assert ([item.id for item in page.data], page.has_more) == ([listed[0].id], True)
        page = await client.conversations.items.list(made.id, order="asc", after=listed[0].id or "")
        assert [item.id for item in page.data] == [item.id for item in listed[1:]]
        for item in listed:
            assert (
                await client.conversations.items.retrieve(item.id or "", conversation_id=made.id)
                == item
            )
        gone = listed[1].id or ""
        deleted = await client.conversations.items.delete(gone, conversation_id=made.id)
        assert deleted.id == made.id
        for call in (client.conversations.items.retrieve, client.conversations.items.delete):
            with pytest.raises(openai.NotFoundError):
                await call(gone, conversation_id=made.id)
        left = (await client.conversations.items.list(made.id, order="asc")).data
        assert left == [listed[0], listed[2]]
        await create(client, model=MODELS["anthropic"], input="Go on", conversation=made.id)
        body = found.sent()
        assert [f"fact {n}" in body for n in range(3)] == [True, False, True]
        assert [
            item.id
            for item in (await client.conversations.items.list(made.id, order="asc")).data[:2]
        ] == [item.id for item in left]
        async with found.client("token-b") as other:
            with pytest.raises(openai.NotFoundError):
                await other.conversations.items.retrieve(left[0].id or "", conversation_id=made.id)
            with pytest.raises(openai.NotFoundError):
                await other.conversations.items.delete(left[0].id or "", conversation_id=made.id)


async def test_a_conversation_of_another_tenant_does_not_exist() -> None:
    memory = MemoryStore()
    async with place(memory, state=stash(memory)) as found, found.client("token-b") as other:
        async with found.client() as client:
            made = await client.conversations.create()
        shown = []
        for id in (made.id, "conv_" + "0" * 48):
            for call in (
                other.conversations.retrieve(id),
                other.conversations.delete(id),
                other.responses.create(model=MODELS["gemini"], input="Hi", conversation=id),
            ):
                with pytest.raises(openai.NotFoundError) as caught:
                    await call
                shown.append(caught.value.message.replace(id, "ID"))
        assert shown[:3] == shown[3:]
        assert found.mock.requests == []


async def test_responses_at_the_same_time_are_all_in_the_conversation(store: Store) -> None:
    async with place(store, state=stash(store)) as found, found.client() as client:
        made = await client.conversations.create()
        await asyncio.gather(
            *(
                client.responses.create(
                    model=MODELS["anthropic"], input=f"question {n}", conversation=made.id
                )
                for n in range(8)
            )
        )
        items = [item async for item in client.conversations.items.list(made.id)]
        assert len(items) == 16


async def test_changes_through_two_gateways_at_the_same_time_are_all_in_the_conversation(
    store: Store,
) -> None:
    key = Sealer.generate()
    states = [ResponseState(store, stash=True, sealer=Sealer(key)) for _ in range(2)]
    async with (
        place(store, state=states[0]) as one,
        place(store, state=states[1]) as other,
        one.client() as first,
        other.client() as second,
    ):
        made = await first.conversations.create()
        added: list[Any] = [{"role": "user", "content": f"number {n}"} for n in range(40)]
        await asyncio.gather(
            *(
                client.conversations.items.create(made.id, items=[item])
                for item, client in zip(added, [first, second] * 20, strict=True)
            )
        )
        items: list[Any] = [item async for item in second.conversations.items.list(made.id)]
        texts = [item.content[0].text for item in items]
        assert sorted(texts) == sorted(item["content"] for item in added)


async def test_without_a_stash_there_are_no_conversations() -> None:
    async with place() as found, found.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.conversations.create()
        assert "responses.stash" in caught.value.message


async def test_a_conversation_above_the_size_limit_is_refused() -> None:
    memory = MemoryStore()
    state = stash(memory, max_bytes=2_000)
    async with place(memory, state=state) as found, found.client() as client:
        item: Any = {"role": "user", "content": "x" * 1_500}
        made = await client.conversations.create(items=[item])
        for call in (
            client.conversations.create(items=[item, item]),
            client.conversations.items.create(made.id, items=[item]),
            client.responses.create(model=MODELS["gemini"], input=[item], conversation=made.id),
        ):
            with pytest.raises(openai.APIStatusError) as caught:
                await call
            assert caught.value.status_code == 413
            assert caught.value.code == "conversation_too_large"
