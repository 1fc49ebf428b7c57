"""`python -m asgi_aiproxy`: check and serve a configuration."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AIPROXY_"):
            monkeypatch.delenv(name)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIPROXY_")}
    done = subprocess.run(
        [sys.executable, "-m", "asgi_aiproxy", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**environment, **variables},
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "aiproxy.toml"
    path.write_text('[providers.openai]\nkeys = ["sk-secret"]\nmodels = ["gpt-4o"]\n')
    return str(path)


def test_version_and_help_are_printed() -> None:
    from asgi_aiproxy import __version__

    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"asgi_aiproxy {__version__}\n")
    done = run("--help")
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert "check" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["serve", "--port", "x"], ["serve", "--port", "99999"], ["check", "-x"]],
)
def test_invalid_arguments_end_with_status_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_check_reports_a_valid_configuration(config: str) -> None:
    done = run("check", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is valid" in done.stdout
    assert "openai" in done.stdout
    done = run("check", AIPROXY_CONFIG=config)
    assert done.returncode == 0
    done = run("check", AIPROXY_PROVIDERS__OPENAI__KEYS="sk-1")
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_invalid_configuration_ends_with_status_2(command: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("typo = 1\n[providers.openai]\nkeys = 5\n")
    done = run(command, "--config", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: typo: unknown setting" in done.stderr
    done = run(command, "--config", str(tmp_path / "missing.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read" in done.stderr
    done = run(command)
    assert done.returncode == 2
    assert "no provider is configured" in done.stderr


def test_check_prints_warnings_and_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "doubtful.toml"
    path.write_text("[providers.openai]\n")
    done = run("check", "--config", str(path))
    assert done.returncode == 0
    assert done.stderr == (
        "asgi_aiproxy: providers.openai: it has no keys, so requests are sent without an API key.\n"
    )


def test_a_port_in_use_is_reported_without_a_traceback(config: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--config", config, "--port", str(port))
    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower()


class Served:
    """`serve` in its own process; `lines` is its standard error."""

    def __init__(self, config: str) -> None:
        command = [sys.executable, "-m", "asgi_aiproxy", "serve", "--config", config]
        self.process = subprocess.Popen(
            [*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.said = ""
        threading.Thread(target=self._read, daemon=True).start()
        found = None
        while found is None:
            line = self.lines.get(timeout=240)
            found = re.search(r"running on (http://[\d.:]+)", line)
        self.url = found[1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            self.lines.put(line)
        self.lines.put("running on http://0 (it ended)")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture
def serving(config: str) -> Iterator[Served]:
    served = Served(config)
    yield served
    if served.process.poll() is None:
        served.process.kill()
    served.process.wait(timeout=60)


def test_serve_answers_health_and_readiness_without_a_token(serving: Served) -> None:
    assert serving.get("/health") == {"status": "ok"}
    assert serving.get("/ready")["status"] == "ready"


def test_serve_is_not_ready_while_it_drains(tmp_path: Path) -> None:
    path = tmp_path / "aiproxy.toml"
    path.write_text('drain = 60\nlog_format = "json"\n[providers.openai]\nkeys = ["sk-1"]\n')
    served = Served(str(path))
    try:
        served.process.send_signal(signal.SIGTERM)
        status = 200
        while status == 200:
            try:
                served.get("/ready")
            except urllib.error.HTTPError as error:
                status = error.code
        assert status == 503
        assert served.get("/health") == {"status": "ok"}
        served.process.send_signal(signal.SIGTERM)  # twice: now
        assert served.process.wait(timeout=60) == 0
    finally:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(timeout=60)
    lines = [json.loads(line) for line in served.said.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(lines[0])


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_serve_runs_until_a_signal_stops_it(serving: Served, stop: signal.Signals) -> None:
    models = serving.get("/v1/models")
    assert [model["id"] for model in models["data"]] == ["gpt-4o"]
    serving.process.send_signal(stop)
    assert serving.process.wait(timeout=60) == 0
    assert "Traceback" not in serving.said
    assert "sk-secret" not in serving.said


def test_serve_logs_usage(serving: Served) -> None:
    request = urllib.request.Request(
        serving.url + "/v1/chat/completions",
        data=b'{"model":"openai/x","messages":[],"provider":"nobody"}',
        headers={"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=60)
    line = serving.lines.get(timeout=60)
    while "asgi_aiproxy.usage" not in line:
        line = serving.lines.get(timeout=60)
    assert "refused chat.completions" in line
