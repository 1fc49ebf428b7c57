"""A gateway on a real server, in front of a mock of every vendor."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import openai
import pytest

from asgi_aiproxy import (
    Authenticate,
    KeyPool,
    OpenAIShim,
    ProviderRouter,
    Shim,
    UsageRecord,
)
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.shim import AIShim
from asgi_aiproxy.testing import MockProvider, serve_in_thread
from asgi_aiproxy.usage.recorder import _SinkQueue
from tests.support.socket_server import PATIENCE

TOKEN = "team-token"
MODELS = {"openai": "gpt-test", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
VENDORS = pytest.mark.parametrize("vendor", list(MODELS))


@dataclass
class World:
    """The address of the gateway, the requests of its vendors, and its usage records."""

    mock: MockProvider
    shims: list[Shim]
    pools: list[KeyPool]
    url: str = ""  # speaks OpenAI's language, and ends in /v1
    polyglot: str = ""  # speaks all
    records: list[UsageRecord] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    async def take(self, record: UsageRecord) -> None:
        """The sink; runs in the gateway's thread."""
        with self._news:
            self.records.append(record)
            self._news.notify_all()

    def record(self, count: int = 1) -> UsageRecord:
        """Return record number `count`, which is the last one."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.records) >= count, PATIENCE)
            assert len(self.records) == count
            return self.records[-1]

    def reset(self) -> None:
        """Forget all requests and records, after waiting for pending records."""
        end = time.monotonic() + PATIENCE
        for queue in [queue for shim in self.shims for queue in shim._recorder._queues]:
            assert isinstance(queue, _SinkQueue)
            while queue._waiting or not (queue._task is None or queue._task.done()):
                assert time.monotonic() < end
                time.sleep(0.001)
        self.mock.reset()
        self.records.clear()
        for pool in self.pools:
            for slot in pool.key_set.states.values():
                slot.reset()


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    mock = MockProvider(models=("gpt-test", "gpt-other"))
    with serve_in_thread(mock) as vendors:
        worlds: list[World] = []

        async def record(record: UsageRecord) -> None:
            await worlds[0].take(record)

        pools = {name: KeyPool([f"sk-{name}"]) for name in MODELS}
        rows = {
            "openai": OPENAI.using(pools["openai"], base_url=vendors + "/v1"),
            "anthropic": ANTHROPIC.using(pools["anthropic"], base_url=vendors),
            "gemini": GEMINI.using(pools["gemini"], base_url=vendors),
        }
        router = ProviderRouter({MODELS[name]: row for name, row in rows.items()})
        shims: list[Shim] = [
            kind(router, record=record, attempts=1) for kind in (OpenAIShim, AIShim)
        ]
        world = World(mock, shims, list(pools.values()))
        worlds.append(world)
        openai_only, all_languages = (
            Authenticate(shim, verify=static_tokens({TOKEN: "team"})) for shim in shims
        )
        with serve_in_thread(openai_only) as url, serve_in_thread(all_languages) as polyglot:
            world.url = f"{url}/v1"
            world.polyglot = polyglot
            yield world


@pytest.fixture
def world(running: World) -> World:
    running.reset()
    return running


@pytest.fixture
async def client(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=world.url, api_key=TOKEN, max_retries=0) as made:
        yield made


@pytest.fixture
def sync_client(world: World) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=world.url, api_key=TOKEN, max_retries=0) as made:
        yield made
