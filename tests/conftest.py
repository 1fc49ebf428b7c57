"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support import redis_server

# On a busy machine any example may take long: what must be fast has a benchmark, not a deadline.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_report_header() -> str:
    return redis_server.version_line()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.get_verbosity() < 0:  # then there was no header
        terminalreporter.write_line(redis_server.version_line())


@pytest.fixture
def anyio_backend() -> str:
    """All tests run on asyncio, like the servers."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A server for this test worker; each test uses its own prefix."""
    if url := redis_server.given_url():
        yield url
    else:
        with redis_server.server() as server:
            yield server.url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[str]:
    """A cluster of three nodes for this test worker."""
    with redis_server.cluster() as nodes:
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
