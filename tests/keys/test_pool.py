"""Keys are added, replaced and removed; mistakes are reported at once; secrets are not shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.keys import (
    Health,
    Key,
    KeyPool,
    NoKeyError,
    fingerprint,
)
from tests.support.key_pools import fails, health, in_flight, named, pool, served, tally

pytestmark = pytest.mark.anyio


async def test_keys_can_be_added_and_removed_while_calls_run() -> None:
    keys, _ = pool(*named("a"))
    running = keys.acquire_nowait()
    await keys.add(Key("sk-b", id="b"))
    await keys.remove("a")
    assert tally(keys, 4) == {"b": 4}
    assert running.key.secret == "sk-a"
    running.report(429)
    running.count_tokens(10)
    running.release()
    assert await health(keys) == {"b": Health.OK}
    assert await in_flight(keys) == 0
    await keys.add("sk-c")
    assert len(keys) == 2
    assert served(keys, key_id=fingerprint("sk-c"))


async def test_a_replaced_key_is_the_new_one_and_calls_in_flight_keep_theirs() -> None:
    keys, _ = pool(Key("old", id="a"))
    running = keys.acquire_nowait()
    fails(keys, 401)
    await keys.rotate("a", "new")
    assert running.key.secret == "old"
    assert await health(keys) == {"a": Health.OK}
    with keys.acquire_nowait() as lease:
        assert lease.key.secret == "new"
        running.report(401)  # says nothing of the new one
        running.release()
        assert await health(keys) == {"a": Health.OK}
    assert await in_flight(keys) == 0
    assert len(keys) == 1


async def test_changed_limits_for_the_same_secret_keep_the_health() -> None:
    keys, _ = pool(Key("sk", id="a", concurrency=5))
    running = [keys.acquire_nowait() for _ in range(5)]
    await keys.add(Key("sk", id="a", concurrency=6, weight=3))
    running.append(keys.acquire_nowait())
    with pytest.raises(NoKeyError):
        keys.acquire_nowait()
    running[0].report(401)
    await keys.add(Key("sk", id="a"))
    assert await health(keys) == {"a": Health.QUARANTINED}
    for lease in running:
        lease.release()
    assert await in_flight(keys) == 0


async def test_ten_thousand_keys_can_be_added_one_by_one() -> None:
    keys, _ = pool()
    for number in range(10_000):
        await keys.add(f"sk-{number}")
    assert len(keys) == 10_000
    assert len(tally(keys, 1000)) == 1000


async def test_no_repr_contains_a_secret() -> None:
    keys = KeyPool(["sk-secret-1", Key("sk-secret-2", id="named", attributes={})])
    lease = keys.acquire_nowait()
    shown = [keys, lease, lease.key, await keys.status(), Key("sk-secret-1"), keys.key_set.states]
    for error in ({"key_id": "x"}, {"exclude": [key.id for key in await keys.status()]}):
        with pytest.raises(NoKeyError) as caught:
            keys.acquire_nowait(**error)
        shown.append(str(caught.value))
    assert "secret" not in repr(shown)
    assert repr(keys) == "KeyPool('default': 2 ok)"
    assert repr(KeyPool()) == "KeyPool('default': no keys)"


def test_a_key_without_an_id_is_known_by_its_fingerprint() -> None:
    assert Key("sk-1").id == fingerprint("sk-1") == "key-" + Key("sk-1").id[4:]
    assert Key("sk-1").id != Key("sk-2").id
    assert len(fingerprint("\ud800")) == 36
    # These two began alike, and were taken for one.
    assert fingerprint("sk-38823") != fingerprint("sk-59480")


async def test_adding_a_key_never_replaces_another_of_the_same_id() -> None:
    keys, _ = pool(Key("old", id="a"))
    with pytest.raises(ConfigurationError, match="another key with the id 'a'"):
        await keys.add(Key("new", id="b"), Key("other", id="a"))
    with pytest.raises(ConfigurationError, match="another key with the id 'c'"):
        await keys.add(Key("1", id="c"), Key("2", id="c"))
    assert {id: key.secret for id, key in keys.keys.items()} == {"a": "old"}
    await keys.add(Key("old", id="a", weight=3))  # the same one, with more to say
    assert keys.keys["a"].weight == 3
    with pytest.raises(KeyError):
        await keys.update(Key("x", id="unknown"))


@pytest.mark.parametrize("one", ["sk-abc", Key("sk-abc")])
def test_a_single_key_is_one_key(one: str | Key) -> None:
    assert len(KeyPool(one)) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KeyPool(["a", "a"]), "the same key is given twice"),
        (lambda: KeyPool([Key("a", id="x"), Key("b", id="x")]), "two keys have the same id: 'x'"),
        (lambda: KeyPool([""], name="openai"), "'openai': a key is empty"),
        (lambda: KeyPool([Key("", id="x")]), "a key is empty.*'x'"),
        (lambda: KeyPool(None), "environment variable"),  # type: ignore[arg-type]
        (lambda: KeyPool([None]), "environment variable"),  # type: ignore[list-item]
        (lambda: KeyPool([b"sk"]), "must be a string, not bytes"),  # type: ignore[list-item]
        (lambda: KeyPool(["sk-1\n"]), "line break"),
        (lambda: KeyPool([" sk-1"]), "a line break, a leading or trailing space"),
        (lambda: KeyPool(["sk-…"]), "not ASCII"),
        (lambda: KeyPool(["a"], strategy="best"), "weighted, round_robin"),  # type: ignore[arg-type]
        (lambda: KeyPool(["a"], cooldown=0), "cooldown"),
        (lambda: KeyPool(["a"], cooldown=float("nan")), "cooldown"),
        (lambda: KeyPool(["a"], max_wait_seconds=-1), "wait"),
        (lambda: Key("a", weight=0), "weight must be at least 1"),
        (lambda: Key("a", id="x", rpm=0), "'x': rpm must be at least 1"),
        (lambda: Key("a", tpm=-1), "tpm must be at least 1"),
        (lambda: Key("a", concurrency=0), "concurrency must be at least 1"),
        (lambda: Key("a", id="x\r\ny"), "printable"),
        (lambda: Key("a", base_url="api.example"), "base_url must begin with http"),
        (lambda: Key("a", proxy="sk-1@proxy:3128"), "the URL of an outbound proxy must begin with"),
    ],
)
def test_a_mistake_is_reported_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        make()
    assert "sk-" not in str(caught.value)


async def test_a_mistake_at_run_time_changes_nothing() -> None:
    keys, _ = pool(*named("a"))
    for bad in ("", "x\n"):
        with pytest.raises(ConfigurationError):
            await keys.add(bad)
    assert len(keys) == 1


def test_models_may_be_one_pattern() -> None:
    keys, _ = pool(Key("sk", models="gpt-*"))  # type: ignore[arg-type]
    assert served(keys, model="gpt-4")
    with pytest.raises(NoKeyError):  # a text is not taken for its letters, one of which is "*"
        keys.acquire_nowait(model="claude")
