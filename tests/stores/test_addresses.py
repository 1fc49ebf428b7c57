"""Addresses of servers, and their requirements: TLS, users, sockets, Sentinel."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores import StoreUnavailableError
from asgi_aiproxy.stores.redis import RedisStore
from tests.support.redis_server import Server, copied, server as started, until
from tests.support.tcp_proxy import Proxy

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    socket = tmp_path_factory.mktemp("socket") / "redis.sock"
    with started("--unixsocket", str(socket)) as server:
        (server.folder / "socket").write_text(str(socket))
        rules = "on >s3cr:t/@ ~aiproxy:* +@read +@write +@scripting +@connection"
        server.ask("ACL", "SETUSER", "gateway", *rules.split())
        yield server


async def works(url: str) -> bool:
    async with RedisStore(url, timeout=5) as store:
        before = await store.sums("here", ["n"])
        after = await store.add("here", {"n": 1})
        return after["n"] == before.get("n", 0) + 1


async def test_a_database_is_named_by_its_number(server: Server) -> None:
    async with RedisStore(f"redis://127.0.0.1:{server.port}/3", prefix="p") as store:
        await store.add("here", {"n": 1})
    assert "db3:keys=1" in server.ask("INFO", "keyspace")


async def test_a_redis_user_needs_access_to_the_prefix_only(server: Server) -> None:
    url = f"redis://gateway:s3cr%3At%2F%40@127.0.0.1:{server.port}/0"
    assert await works(url)
    async with RedisStore(url, prefix="others") as store:
        with pytest.raises(StoreUnavailableError, match="permission"):
            await store.get("t", "k")


async def test_a_wrong_password_is_reported_and_not_shown(server: Server) -> None:
    store = RedisStore(f"redis://gateway:hunter2@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailableError, match="password") as caught:
        await store.get("t", "k")
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r} {store!r}"
    await store.aclose()


async def test_a_unix_socket_serves(server: Server) -> None:
    assert await works(f"unix://{(server.folder / 'socket').read_text()}?db=1")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_tls_requires_a_certificate_for_the_host(
    server: Server, tls: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    known = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(known))
    async with Proxy(server.port, tls=tls) as proxy:
        assert await works(f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={known}")
        async with RedisStore(f"rediss://127.0.0.1:{proxy.port}/0", timeout=5) as store:
            with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await store.get("t", "k")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "The URL of a Redis server"),
        ("localhost:6379", "The URL of a Redis server"),
        ("", "The URL of a Redis server"),
        ("redis+ring://localhost", "The URL of a Redis server"),
        ("redis+sentinel://localhost:26379", "does not name the master"),
        ("redis+sentinel:///mymaster", "names no host"),
        ("redis+cluster://a:x,b:1", "port is not a number"),
        ("redis://localhost:x", "[Pp]ort"),
        ("redis://localhost?no_such_option=1", "no_such_option"),
    ],
)
def test_an_invalid_address_is_reported_at_once(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RedisStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:1/0",
        "redis+sentinel://user:hunter2@a:1,b:2/main",
        "rediss+cluster://:hunter2@a:1,b:2",
    ],
)
def test_a_password_is_not_shown(url: str) -> None:
    assert "hunter2" not in repr(RedisStore(url))


async def test_an_unknown_host_is_reported(free: int) -> None:
    async with RedisStore(f"redis://127.0.0.1:{free}/0") as store:
        with pytest.raises(StoreUnavailableError, match=f"{free}"):
            await store.get("t", "k")


@pytest.fixture
def free() -> int:
    with started() as gone:
        return gone.port


# Sentinel


class Watched:
    """A master, its replica, and a Sentinel that monitors them."""

    def __init__(self, stack: ExitStack) -> None:
        self.master = stack.enter_context(started())
        self.replica = stack.enter_context(
            started("--replicaof", "127.0.0.1", str(self.master.port))
        )
        port = self.master.port
        self.sentinel = Server(
            sentinel=f"sentinel monitor main 127.0.0.1 {port} 1\n"
            f"sentinel down-after-milliseconds main 500\n"
            f"sentinel failover-timeout main 2000\n"
            f"requirepass w4tch\n",
            password="w4tch",
        )
        stack.callback(self.sentinel.remove)
        until(lambda: "master_link_status:up" in self.replica.ask("INFO"), "the replica")
        until(lambda: "slaves=1" in self.sentinel.ask("INFO", "sentinel"), "the Sentinel")

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.sentinel.port}/main/0?sentinel_password=w4tch"


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)


async def test_sentinels_are_queried_over_tls_too(
    watched: Watched, tls: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    """The master itself has no TLS here; the attempt to connect to it shows that it was found."""
    known = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(known))
    async with Proxy(watched.sentinel.port, tls=tls) as proxy:
        url = f"rediss+sentinel://127.0.0.1:{proxy.port}/main/0?sentinel_password=w4tch"
        before = connections(watched.master)
        async with RedisStore(f"{url}&ssl_ca_certs={known}", timeout=2) as store:
            with pytest.raises(StoreUnavailableError):
                await store.get("t", "k")
            assert connections(watched.master) >= before + 2  # the store's, and who asks here
        before = connections(watched.master)
        async with RedisStore(url, timeout=2) as store:
            with pytest.raises(StoreUnavailableError):
                await store.get("t", "k")
            assert connections(watched.master) == before + 1


def connections(server: Server) -> int:
    """Return the number of connections so far."""
    reported = server.ask("INFO", "stats")
    return int(reported.partition("total_connections_received:")[2].partition("\r")[0])


async def came_back(store: RedisStore) -> dict[str, int]:
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.add("here", {"n": 1})
            except StoreUnavailableError:
                await asyncio.sleep(0.05)


async def test_when_the_master_fails_the_next_one_is_used(watched: Watched) -> None:
    async with RedisStore(watched.url, timeout=1) as store:
        assert await store.add("here", {"n": 1}) == {"n": 1}
        copied(watched.master, watched.replica)
        watched.master.stop()
        result = await came_back(store)
        assert result == {"n": 2}
        assert "role:master" in watched.replica.ask("INFO", "replication")


async def test_a_master_that_became_a_replica_is_left(watched: Watched) -> None:
    """It still answers, but refuses writes."""
    async with RedisStore(watched.url, timeout=1) as store:
        assert await store.add("here", {"n": 1}) == {"n": 1}
        assert watched.sentinel.ask("SENTINEL", "FAILOVER", "main").startswith("+OK")
        until(lambda: "role:slave" in watched.master.ask("INFO", "replication"), "the change")
        result = await came_back(store)
        assert result["n"] >= 1
        assert "role:master" in watched.replica.ask("INFO", "replication")
        assert watched.replica.ask("HGET", "aiproxy:{here}:n", "n") == f"$1\r\n{result['n']}\r\n"


def test_a_store_with_sentinel_can_be_used_in_another_event_loop(watched: Watched) -> None:
    store = RedisStore(watched.url, timeout=2)

    async def use() -> dict[str, int]:
        return await store.add("here", {"n": 1})

    assert [asyncio.run(use())["n"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "url",
    [
        "redis//:hunter2pass@localhost",
        "redis:/:hunter2pass@localhost",
        "localhost:6379:hunter2pass",
        "hunter2pass",
        "redis://u:hunter2pass@[::1/0",
        "redis://:hunter2pass/x@localhost/0",
        "redis://:hunter2pass?x@localhost/0",
        "redis://:x#hunter2pass@localhost/0",
        "redis://:hunter2pass@localhost:port/0",
        "redis+sentinel://:hunter2pass@localhost/",
        "redis://:hunter2pass@localhost/0?socket_timeout=x",
    ],
)
def test_a_mistyped_address_is_not_quoted_with_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url)
    assert "hunter2pass" not in str(caught.value)
