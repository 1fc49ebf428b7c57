"""Background work: in batches, retried, bounded."""

from __future__ import annotations

import asyncio
import logging

import pytest

from asgi_aiproxy._retry_queue import RetryQueue

pytestmark = pytest.mark.anyio


async def test_items_are_handed_over_in_order_and_in_batches() -> None:
    batches: list[list[int]] = []

    async def handle(batch: list[int]) -> list[int]:
        batches.append(batch)
        await asyncio.sleep(0)
        return []

    backlog = RetryQueue(handle, what="numbers", batch_size=10)
    for number in range(25):
        backlog.put(number)
    assert len(backlog) == 25
    await backlog.drain()
    assert len(backlog) == 0
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [number for batch in batches for number in batch] == list(range(25))


async def test_items_to_retry_are_handled_before_the_rest() -> None:
    tries: list[list[int]] = []

    async def handle(batch: list[int]) -> list[int]:
        tries.append(batch)
        return [number for number in batch if number % 2] if len(tries) == 1 else []

    backlog = RetryQueue(handle, what="numbers", batch_size=4)
    for number in range(6):
        backlog.put(number)
    await backlog.drain()
    assert tries == [[0, 1, 2, 3], [1, 3, 4, 5]]


async def test_a_failing_batch_is_dropped_and_logged_and_the_rest_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []

    async def handle(batch: list[int]) -> list[int]:
        if 1 in batch:
            raise RuntimeError("no")
        done.extend(batch)
        return []

    backlog = RetryQueue(handle, what="numbers", batch_size=1)
    for number in range(3):
        backlog.put(number)
    await backlog.drain()
    assert done == [0, 2]
    assert "1 numbers are lost" in caplog.text


async def test_the_number_of_waiting_items_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(batch: list[int]) -> list[int]:
        return batch

    backlog = RetryQueue(handle, what="numbers", max_items=5)
    for number in range(20):
        backlog.put(number)
    assert len(backlog) == 5
    assert caplog.text.count("too many numbers are waiting") == 1
    with caplog.at_level(logging.ERROR):
        await backlog.drain(0.05)
    assert "5 numbers are lost" in caplog.text
    assert len(backlog) == 0


async def test_a_batch_is_collected_unless_drain_waits_for_it() -> None:
    batches: list[list[int]] = []

    async def handle(batch: list[int]) -> list[int]:
        batches.append(batch)
        return []

    backlog = RetryQueue(handle, what="numbers", batch_delay=60)
    for number in range(3):
        backlog.put(number)
        await asyncio.sleep(0)
    assert batches == []
    await backlog.drain()
    assert batches == [[0, 1, 2]]


def test_it_continues_in_another_event_loop() -> None:
    done: list[int] = []

    async def handle(batch: list[int]) -> list[int]:
        await asyncio.sleep(0)
        done.extend(batch)
        return []

    backlog = RetryQueue(handle, what="numbers")

    async def put(number: int, *, drain: bool) -> None:
        backlog.put(number)
        if drain:
            await backlog.drain()

    asyncio.run(put(1, drain=False))
    asyncio.run(put(2, drain=True))
    assert 2 in done
