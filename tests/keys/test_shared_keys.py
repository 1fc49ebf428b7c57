"""Keys are added and removed for all processes while calls run."""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
from collections import Counter
from collections.abc import Collection

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.keys import Health, Key, KeyPool, NoEncryption, NoKeyError, Sealer, SealError
from asgi_aiproxy.keys.key_store import KeyStore
from asgi_aiproxy.stores import MemoryStore, Store
from tests.keys.conftest import Pools, health, ids
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def has(pool: KeyPool, *expected: str) -> bool:
    return await ids(pool) == list(expected)


async def test_keys_are_those_given_in_code_and_those_of_the_store(worker: Pools) -> None:
    first = await worker(Key("sk-z", id="z"), Key("sk-y", id="y"))
    second = await worker(Key("sk-z", id="z"), Key("sk-y", id="y"))
    await first.add(Key("sk-b", id="b"), Key("sk-a", id="a"))
    assert await has(first, "z", "y", "a", "b")
    await until(lambda: has(second, "z", "y", "a", "b"))
    await second.remove("a")
    await until(lambda: has(first, "z", "y", "b"))
    await second.replace([Key("sk-c", id="c"), Key("sk-d", id="d")])
    await until(lambda: has(first, "z", "y", "c", "d"))
    await second.replace([])
    await until(lambda: has(first, "z", "y"))


async def test_every_field_of_a_key_is_stored(worker: Pools) -> None:
    key = Key(
        "sk",
        id="a",
        weight=3,
        priority=2,
        models=("gpt-*", "o1"),
        rpm=5,
        tpm=6,
        concurrency=7,
        proxy="http://user:password@proxy:3128",
        base_url="https://vendor.example/v1",
        attributes={"region": "eu", "nested": [1, None, "x"]},
    )
    first, second = await worker(), await worker()
    await first.add(key)
    await until(lambda: has(second, "a"))
    assert second.key_set.states["a"].key == key
    assert second.key_set.states["a"].key.attributes == key.attributes


async def test_many_keys_are_added_at_once_all_or_none(worker: Pools) -> None:
    pool, other = await worker(), await worker()
    await pool.add(*(Key(f"sk-{n}", id=f"k{n:05}") for n in range(2000)))
    assert len(pool) == 2000

    async def all_there() -> bool:
        return len(other) == 2000

    await until(all_there)
    with pytest.raises(ConfigurationError, match="'bad'"):
        await pool.add(Key("sk-x", id="x"), Key("line\nbreak", id="bad"))
    with pytest.raises(ConfigurationError, match="'twice'"):
        await pool.add(Key("sk-x", id="twice"), Key("sk-y", id="twice"))
    assert len(pool) == 2000


async def test_a_key_given_in_code_can_be_replaced_and_disabled_but_not_removed(
    worker: Pools,
) -> None:
    given = Key("from-code", id="a")
    first, second = await worker(given), await worker(given)
    with pytest.raises(ConfigurationError, match="disabled"):
        await first.remove("a")
    await first.rotate("a", "from-store")
    await until(lambda: _serves(second, "from-store"))
    await first.remove("a")
    await until(lambda: _serves(second, "from-code"))
    await second.disable("a")
    with pytest.raises(ConfigurationError, match="disabled"):
        await second.remove("a")  # which does not enable it
    await second.replace([Key("sk-b", id="b")])
    assert await health(await worker(given)) == {"a": Health.DEAD, "b": Health.OK}


async def _serves(pool: KeyPool, secret: str) -> bool:
    with await pool.acquire() as lease:
        return lease.key.secret == secret


async def test_a_disabled_key_stays_so_when_it_is_edited_and_not_when_it_is_new(
    worker: Pools,
) -> None:
    pool = await worker()
    await pool.add(Key("sk", id="a"))
    await pool.disable("a")
    await pool.add(Key("sk", id="a", weight=5))
    assert await health(pool) == {"a": Health.DEAD}
    await pool.rotate("a", "other")
    assert await health(pool) == {"a": Health.OK}


async def test_adding_never_replaces_another_key_in_any_worker(worker: Pools) -> None:
    first, second = await worker(), await worker()
    await first.add(Key("sk-1", id="a"))
    for pool in (first, second):
        with pytest.raises(ConfigurationError, match="another key with the id 'a'"):
            await pool.add(Key("sk-b", id="b"), Key("sk-2", id="a"))
        assert {key.secret for key in first.keys.values()} == {"sk-1"}
    results = await asyncio.gather(
        *(pool.add(Key(f"sk-{n}", id="new")) for n, pool in enumerate((first, second))),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["KeyExistsError", "NoneType"]


async def test_an_affinity_selects_the_same_key_in_all_processes(worker: Pools) -> None:
    first = await worker()
    for id in "fbdace":
        await first.add(Key(f"sk-{id}", id=id, weight=1 + (id == "c")))
    second = await worker()
    for n in range(50):
        chosen = set()
        for pool in (first, second):
            with await pool.acquire(affinity=f"session {n}") as lease:
                chosen.add(lease.key.id)
        assert len(chosen) == 1


async def test_keys_rotate_under_load_and_no_call_uses_a_revoked_one(worker: Pools) -> None:
    """The procedure of an operator: add the new secret, wait until all workers use it, revoke the
    old one.
    """
    valid = {"sk-a-0", "sk-b-0"}
    pools = [await worker(max_wait_seconds=5), await worker(max_wait_seconds=5)]
    await pools[0].add(Key("sk-a-0", id="a", concurrency=20), Key("sk-b-0", id="b"))
    await until(lambda: has(pools[1], "a", "b"))
    used: Counter[str] = Counter()
    failed: list[str] = []
    over = asyncio.Event()

    async def caller(pool: KeyPool) -> None:
        while not over.is_set():
            async with pool.lease() as lease:
                secret = lease.key.secret
                await asyncio.sleep(0.001)
                lease.report(200 if secret in valid else 401)
                used[secret] += 1
                if secret not in valid:
                    failed.append(secret)

    callers = [asyncio.create_task(caller(pool)) for pool in pools for _ in range(10)]
    for turn in range(1, 4):
        for id in "ab":
            old, new = f"sk-{id}-{turn - 1}", f"sk-{id}-{turn}"
            valid.add(new)
            await pools[turn % 2].rotate(id, new)
            await until(lambda id=id, new=new: _have(pools, id, new))
            await asyncio.sleep(0.05)  # calls that still run with the old one
            valid.remove(old)
    over.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*callers)
    assert failed == []
    assert {f"sk-{id}-{turn}" for id in "ab" for turn in range(4)} == set(used)


async def _have(pools: list[KeyPool], id: str, secret: str) -> bool:
    return all(pool.key_set.states[id].key.secret == secret for pool in pools)


async def test_an_outdated_list_of_keys_that_arrives_late_is_ignored() -> None:
    class Late(MemoryStore):
        delay = 0.0

        async def rows(self, table: str, keys: Collection[str] | None = None) -> dict[str, bytes]:
            found, delay = await super().rows(table, keys), self.delay
            if keys is None:
                self.delay = 0.0
                await asyncio.sleep(delay)
            return found

    store = Late()
    async with KeyPool(name="v", store=store, sealer=NoEncryption()) as pool:
        await KeyStore(store, "v", NoEncryption()).put(Key("sk-a", id="a"))
        await until(lambda: has(pool, "a"))
        store.delay = 0.3
        reading = asyncio.create_task(pool.shared.refresh())  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
        await pool.add(Key("sk-b", id="b"))
        assert await has(pool, "a", "b")
        await reading
        assert await has(pool, "a", "b")


async def test_concurrent_edits_of_keys_do_not_undo_each_other(store: Store) -> None:
    tables = [KeyStore(store, "vendor", NoEncryption()) for _ in range(2)]
    await asyncio.gather(
        *(
            table.put(Key(f"sk-{n}-{m}", id=f"k{m}"))
            for n, table in enumerate(tables)
            for m in range(20)
        ),
        *(tables[0].set_enabled(f"k{m}", enabled=False) for m in range(20)),
    )
    found = await tables[1].keys()
    assert sorted(found) == sorted(f"k{m}" for m in range(20))
    assert all(stored.key is not None and not stored.error for stored in found.values())
    assert list(await tables[0].page("k17", 2)) == ["k18", "k19"]


async def test_a_local_pool_replaces_and_rotates_too() -> None:
    pool = KeyPool([Key("sk-a", id="a", weight=3), Key("sk-b", id="b")])
    running = pool.acquire_nowait(key_id="a")
    await pool.rotate("a", "new")
    assert running.key.secret == "sk-a"
    assert pool.acquire_nowait(key_id="a").key == Key("new", id="a", weight=3)
    await pool.replace(["sk-c", Key("sk-b", id="b")])
    assert await ids(pool) == [Key("sk-c").id, "b"]
    running.release()
    with pytest.raises(KeyError):
        await pool.rotate("a", "x")


# ── sealed ───────────────────────────────────────────────────────────────────

PHRASE = "correct horse battery staple"


@pytest.mark.parametrize("key", [Sealer.generate(), PHRASE], ids=["key", "passphrase"])
async def test_no_secret_is_in_the_store(store: Store, key: str) -> None:
    made = Key("sk-secret", id="a", proxy="http://u:hunter2@p:1", attributes={"token": "topsecret"})
    async with KeyPool(name="v", store=store, sealer=Sealer(key)) as pool:
        await pool.add(made)
    (row,) = (await store.rows("keys:v")).values()
    assert not any(word in row for word in (b"sk-secret", b"hunter2", b"topsecret"))
    async with KeyPool(name="v", store=store, sealer=Sealer(key)) as pool:
        assert pool.key_set.states["a"].key == made


async def test_without_a_sealer_no_secret_is_written(store: Store) -> None:
    async with KeyPool(Key("sk", id="given"), name="v", store=store) as pool:
        with pytest.raises(ConfigurationError, match="Sealer"):
            await pool.add("sk-2")
        await pool.disable("given")
    assert await store.rows("keys:v") == {"given": b'{"enabled":false}'}


async def test_a_wrong_sealing_key_is_reported_with_the_keys_id_and_no_secret(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Sealer(Sealer.generate()), Sealer(PHRASE)
    table = KeyStore(store, "v", good)
    await table.put(Key("sk-secret", id="mine"))
    for sealer in (bad, None):
        with pytest.raises(ConfigurationError, match="'mine' of pool 'v'") as caught:
            async with KeyPool(name="v", store=store, sealer=sealer):
                pass
        assert "sk-secret" not in str(caught.value)
    # Beside others that can be read it is left out, and named.
    caplog.clear()
    with caplog.at_level(logging.ERROR, "asgi_aiproxy"):
        async with KeyPool(Key("sk-2", id="other"), name="v", store=store, sealer=bad) as pool:
            assert await ids(pool) == ["other"]
            await KeyStore(store, "v", bad).put(Key("sk-3", id="third"))
            await until(lambda: has(pool, "other", "third"))
    assert caplog.text.count("'mine' of pool 'v'") == 1
    assert "sk-secret" not in caplog.text


async def test_sealing_keys_are_rotated_without_an_interruption(store: Store) -> None:
    old, new = Sealer.generate(), PHRASE
    keys = [Key(f"sk-{n}", id=str(n)) for n in range(10)]
    await KeyStore(store, "v", Sealer(old)).put(*keys)
    both = KeyStore(store, "v", Sealer([new, old]))
    assert await both.reencrypt() == 10
    for sealer in (Sealer(new), Sealer([old, new])):
        found = await KeyStore(store, "v", sealer).keys()
        assert [stored.key for _, stored in sorted(found.items())] == keys
    assert all(stored.error for stored in (await KeyStore(store, "v", Sealer(old)).keys()).values())
    with pytest.raises(SealError, match="'0' of pool 'v'"):
        await KeyStore(store, "v", Sealer(old)).reencrypt()


async def test_unencrypted_secrets_are_read_and_can_be_encrypted(store: Store) -> None:
    await KeyStore(store, "v", NoEncryption()).put(Key("sk-1", id="a"))
    sealed = KeyStore(store, "v", Sealer(PHRASE))
    assert await sealed.reencrypt() == 1
    assert b"sk-1" not in (await store.rows("keys:v"))["a"]
    assert (await sealed.keys())["a"].key == Key("sk-1", id="a")


async def test_an_encrypted_secret_is_valid_for_its_own_key_and_pool_only(store: Store) -> None:
    sealer = Sealer(Sealer.generate())
    await KeyStore(store, "v", sealer).put(Key("sk-1", id="cheap"))
    row = (await store.rows("keys:v"))["cheap"]
    await store.put("keys:v", "dear", row)
    await store.put("keys:other", "cheap", row)
    found = await KeyStore(store, "v", sealer).keys()
    assert found["cheap"].key is not None
    assert "'dear'" in found["dear"].error
    assert (await KeyStore(store, "other", sealer).keys())["cheap"].error


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"no json",
        b"[]",
        b'{"hidden":5}',
        b'{"hidden":"sealed1:"}',
        b'{"hidden":"sealed1:%%%"}',
        b'{"hidden":"sealed1:AAAA"}',
        b'{"hidden":"what"}',
        b'{"hidden":"plain:{}"}',
        b'{"hidden":"plain:{\\"secret\\":\\"\\"}"}',
        b'{"hidden":"plain:{\\"secret\\":\\"x\\"}","weight":0}',
    ],
)
async def test_a_damaged_row_is_named_and_stops_no_other(row: bytes) -> None:
    store, sealer = MemoryStore(), Sealer(Sealer.generate())
    table = KeyStore(store, "v", sealer)
    await table.put(Key("sk-1", id="good"))
    await store.put("keys:v", "damaged", row)
    found = await table.keys()
    assert "'damaged'" in found["damaged"].error
    async with KeyPool(name="v", store=store, sealer=sealer) as pool:
        assert await ids(pool) == ["good"]
        with pytest.raises(ConfigurationError, match="another key"):
            await pool.add(Key("sk-2", id="damaged"))  # it cannot be known which one it is
        await pool.remove("damaged")
        await pool.add(Key("sk-2", id="damaged"))
        assert await ids(pool) == ["damaged", "good"]
        await store.put("keys:v", "damaged", row)
        await pool.replace([Key("sk-3", id="new")])
        assert await ids(pool) == ["new"]


@pytest.mark.parametrize("position", [0, 1, 7, 20, 31, -1])
def test_a_changed_ciphertext_is_refused(position: int) -> None:
    sealer = Sealer(Sealer.generate())
    sealed = sealer.encrypt(b"data", "about")
    head, body = sealed.split(":")
    raw = bytearray(base64.urlsafe_b64decode(body))
    at = 16 + position if position >= 0 else position
    raw[at] ^= 1
    changed = f"{head}:{base64.urlsafe_b64encode(raw).decode()}"
    with pytest.raises(SealError):
        sealer.decrypt(changed, "about")
    assert sealer.decrypt(sealed, "about") == b"data"


@pytest.mark.parametrize("wrong", ["", "short", "fifteen letters"])
def test_a_weak_sealing_key_is_refused_and_not_quoted(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="16 characters") as caught:
        Sealer(wrong)
    assert not wrong or wrong not in str(caught.value)
    with pytest.raises(ConfigurationError):
        Sealer([])
    with pytest.raises(ConfigurationError, match="environment"):
        Sealer(None)  # type: ignore[arg-type]


def test_a_sealer_shows_nothing_of_its_keys() -> None:
    assert repr(Sealer([PHRASE, Sealer.generate()])) == "Sealer(2 keys)"


def test_without_cryptography_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"asgi-aiproxy\[sealed\]"):
        Sealer(PHRASE)


async def test_a_request_for_an_unknown_key_is_refused(worker: Pools) -> None:
    pool = await worker()
    with pytest.raises(NoKeyError) as caught:
        await pool.acquire()
    assert not caught.value.exists
    with pytest.raises(NoKeyError) as caught:
        await pool.acquire(key_id="x")
    assert caught.value.unknown
