"""All calls of a shared store for one request are made in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from asgi_aiproxy import Key, KeyPool, OpenAIShim, Principal
from asgi_aiproxy.keys import NoEncryption
from asgi_aiproxy.middleware import Authenticate, Quota, static_tokens
from asgi_aiproxy.principal import Limits
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import Admitted, Denied, Grant, MemoryStore
from asgi_aiproxy.usage.record import UsageRecord
from tests.support import asgi_client as asgi
from tests.support.scripted_upstream import Upstream, answers, refuses

pytestmark = pytest.mark.anyio

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
BEARER = {"authorization": "Bearer token"}


class Slow(MemoryStore):
    """A store whose first `held` admissions are answered when all of them have arrived."""

    def __init__(self, held: int) -> None:
        super().__init__()
        self._missing = held
        self._all_present = asyncio.Event()

    async def admit(
        self,
        holder: str,
        grants: Sequence[Grant],
        *,
        ttl: float = 60.0,
        one_of: Sequence[Sequence[Grant]] = (),
    ) -> Admitted | Denied:
        self._missing -= 1
        if self._missing <= 0:
            self._all_present.set()
        async with asyncio.timeout(60):
            await self._all_present.wait()
        return await super().admit(holder, grants, ttl=ttl, one_of=one_of)


class Place:
    """A gateway with a limited caller and a limited key, both in one store."""

    def __init__(self, store: MemoryStore, *steps: object, rpm: int = 5) -> None:
        self.upstream = Upstream(*(steps or (answers(),)))
        self.pool = KeyPool(
            [Key("sk-secret-key", id="k", rpm=10)], name="p", store=store, sealer=NoEncryption()
        )
        self.records: list[UsageRecord] = []

        async def record(usage: UsageRecord) -> None:
            self.records.append(usage)

        self.shim = OpenAIShim(
            OPENAI.using(self.pool), transport=self.upstream.transport, record=record
        )
        who = Principal("alice", limits=Limits(rpm=rpm), models=("m",))
        self.app = Authenticate(Quota(self.shim, store=store), verify=static_tokens({"token": who}))

    async def ask(self, body: bytes = BODY) -> int:
        answer = await asgi.request(
            self.app, "POST", "/v1/chat/completions", body=body, headers=BEARER
        )
        return answer.status


async def used(store: MemoryStore, place: Place) -> int:
    """The number of times that the key was counted in its window."""
    slot = place.pool.key_set.states["k"]
    assert place.pool.shared is not None
    (level,) = await store.peek(place.pool.shared.limits.grants(slot)[:1])
    return level.used


async def test_the_callers_limits_and_the_keys_are_reserved_in_one_round_trip() -> None:
    store = Slow(held=2)
    place = Place(store)
    async with place.pool, place.app:
        assert await place.ask() == 200
        assert await used(store, place) == 1


async def test_a_caller_over_its_limit_uses_up_no_key() -> None:
    store = MemoryStore()
    place = Place(store, answers(), answers(), rpm=1)
    async with place.pool, place.app:
        assert [await place.ask() for _ in range(4)] == [200, 429, 429, 429]
        async with asyncio.timeout(60):
            while await used(store, place) != 1:
                await asyncio.sleep(0.01)
        (status,) = await place.pool.status()
        assert (status.uses, status.in_flight) == (1, 0)


async def test_a_failed_key_causes_no_second_admission() -> None:
    store = MemoryStore()
    place = Place(store, refuses(500), answers())
    async with place.pool, place.app:
        assert await place.ask() == 200
        assert await used(store, place) == 2  # both attempts were sent


async def test_a_model_that_the_caller_may_not_use_is_refused_and_recorded() -> None:
    place = Place(MemoryStore())
    async with place.pool, place.app:
        assert await place.ask(BODY.replace(b'"m"', b'"other"')) == 403
    (record,) = place.records
    assert (record.outcome, record.status, record.requested_model) == ("refused", 403, "other")
    assert place.upstream.requests == []
