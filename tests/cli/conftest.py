"""Runs commands over a store that persists from one command to the next."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy.__main__ import main

CONFIG = """
{store}
sealing_keys = ["a passphrase that is long enough"]
[providers.openai]
keys = [{{ secret = "sk-of-the-file", id = "file" }}]
base_url = "{url}/v1"
"""


class Ran:
    """The output of a command, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err
        assert "Traceback" not in out + err, err

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(params=["file", "redis"])
def store_setting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f'store_file = "{tmp_path / "state"}"'
    url = request.getfixturevalue("redis_url")
    return f'redis_url = "{url}"\nredis_prefix = "test-{uuid.uuid4().hex}"'


@pytest.fixture
def configured(
    tmp_path: Path, store_setting: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Writes a configuration, and sets its path for all commands."""
    for name in list(os.environ):
        if name.upper().startswith("AIPROXY_"):
            monkeypatch.delenv(name)

    def configured(url: str = "http://127.0.0.1:9") -> Path:
        path = tmp_path / "aiproxy.toml"
        path.write_text(CONFIG.format(store=store_setting, url=url), "utf-8")
        monkeypatch.setenv("AIPROXY_CONFIG", str(path))
        return path

    return configured


@pytest.fixture
def run(
    configured: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:
    """Runs a command; `stdin` is its standard input."""
    configured()
    logger = logging.getLogger("asgi_aiproxy")
    level = logger.level

    def run(*arguments: str, stdin: str = "") -> Ran:
        bytes_in = io.BytesIO(stdin.encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(bytes_in, "utf-8"))
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as left:
            status = int(left.code or 0)
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    yield run
    logger.setLevel(level)  # commands have a process of their own, and say how much they log
