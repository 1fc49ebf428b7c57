"""Several workers over one Redis are one gateway, in real processes, as in the docs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from asgi_aiproxy.testing import Answer, MockProvider, serve_in_thread
from tests.support import redis_server
from tests.support.redis_server import die_with_parent, free_port, until

ROOT = Path(__file__).parent.parent
APP = "examples.starlette_app.app:app"


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """A separate server: the example and its commands use the default prefix."""
    with redis_server.server() as server:
        yield server.url


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    with serve_in_thread(MockProvider(Answer(text="Hello"))) as url:
        yield url


def environment(redis: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIPROXY_")}
    vendors = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    kept = {name: value for name, value in kept.items() if name not in vendors}
    return {**kept, "REDIS_URL": redis, "AIPROXY_REDIS_URL": redis, **more}


def command(redis: str, *arguments: str) -> Any:
    """Return the JSON output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "asgi_aiproxy", *arguments, "--json"],
        cwd=ROOT, env=environment(redis), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@contextmanager
def served(redis: str, mock_url: str, *options: str) -> Iterator[str]:
    """Serve the example with uvicorn; yields its URL."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", APP, "--port", str(port), *options],
            cwd=ROOT, env=environment(redis, MOCK_URL=mock_url, ADMIN_TOKEN="the-admins-token"),
            stdout=log, stderr=log, preexec_fn=die_with_parent,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: answers(process, url, log), url)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(process: subprocess.Popen[bytes], url: str, log: Any) -> bool:
    if process.poll() is not None:
        log.seek(0)
        raise AssertionError(log.read().decode()[-2000:])
    try:
        return ask(url + "/ai-admin/ready")[0] == 200
    except OSError:
        return False


def ask(url: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    data = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers), timeout=60
        ) as found:
            return found.status, json.loads(found.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def chat(url: str, token: str, model: str = "gpt-4o") -> int:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": model, "messages": messages, "max_tokens": 50}
    return ask(f"{url}/ai/v1/chat/completions", body, token)[0]


def at_once(urls: list[str], token: str, each: int) -> Counter[int]:
    """The statuses of many concurrent calls."""
    with ThreadPoolExecutor(20) as pool:
        return Counter(pool.map(lambda url: chat(url, token), urls * each))


def test_a_token_issued_by_command_is_limited_across_two_workers(redis: str, mock_url: str) -> None:
    with served(redis, mock_url, "--workers", "2") as url:
        issued = command(redis, "tokens", "issue", "--name", "team-1", "--rpm", "10")
        assert at_once([url], issued["secret"], 40) == {200: 10, 429: 30}
        (token,) = command(redis, "tokens", "list")["data"]
        assert token["limits"]["rpm"] == {"limit": 10, "used": 10}
        command(redis, "tokens", "revoke", "team-1")
        until(lambda: at_once([url], issued["secret"], 8) == {401: 8}, "dead in both workers")


def test_two_servers_share_limits_budgets_keys_and_ledger(redis: str, mock_url: str) -> None:
    with served(redis, mock_url) as one, served(redis, mock_url) as two:
        token = command(redis, "tokens", "issue", "--name", "a", "--rpm", "15")
        assert at_once([one, two], token["secret"], 20) == {200: 15, 429: 25}
        # 50 tokens of gpt-4o may cost $0.0005 and a bit, so of $0.0008 only one goes out at a time.
        poor = command(redis, "tokens", "issue", "--name", "b", "--budget", "0.0008")
        counted = at_once([one, two], poor["secret"], 10)
        assert counted.keys() <= {200, 429}
        shown = command(redis, "tokens", "show", poor["token"]["id"])["limits"]["budgets"][0]
        assert 0 < shown["spent"] + shown["held"] <= 0.0008
        admin = "the-admins-token"
        disabled = f"{one}/ai-admin/providers/openai/keys"
        (key,) = ask(disabled, token=admin)[1]["data"]
        other = command(redis, "tokens", "issue", "--name", "c")["secret"]
        assert chat(two, other) == 200
        assert ask(f"{disabled}/{key['id']}/disable", {}, admin)[0] == 200
        until(
            lambda: chat(two, other) != 200,
            "a key that is disabled in one worker is not used in the other",
        )
        assert ask(f"{disabled}/{key['id']}/enable", {}, admin)[0] == 200
        until(lambda: chat(two, other) == 200, "it is back at the other")
        until(lambda: booked(redis, token["token"]["id"]) == 40, "all calls are charged")
        assert booked(redis, token["token"]["id"], field="failed") == 0


def booked(redis: str, caller: str, field: str = "requests") -> int:
    rows = command(redis, "usage", "--by", "principal", "--name", caller)["data"]
    return int(rows[0][field]) if rows else 0


def signed_in(url: str) -> httpx2.Client:
    """A browser with a session in the console of this process."""
    client = httpx2.Client(base_url=url, follow_redirects=True, timeout=60)
    page = client.get("/ai-console/sign-in").text
    fields = dict(re.findall(r'name="(form_token|next)" value="([^"]*)"', page))
    done = client.post(
        "/ai-console/sign-in",
        data={**fields, "token": "the-admins-token"},
        headers={"sec-fetch-site": "same-origin"},
    )
    assert done.status_code == 200, done.text
    return client


def test_what_one_process_changes_the_console_of_the_other_shows(redis: str, mock_url: str) -> None:
    token = command(redis, "tokens", "issue", "--name", "console-user")["secret"]
    with served(redis, mock_url) as first, served(redis, mock_url) as second:
        here = signed_in(first)
        there = httpx2.Client(base_url=second, cookies=here.cookies, timeout=60)
        page = there.get("/ai-console/groups")  # one session for both processes
        assert page.status_code == 200
        form = re.search(r'name="form_token" value="([^"]*)"', page.text)
        assert form is not None
        made = there.post(
            "/ai-console/groups",
            data={"form_token": form[1], "name": "made-elsewhere", "ratio": "1"},
            headers={"sec-fetch-site": "same-origin"},
        )
        assert made.status_code == 303
        assert "made-elsewhere" in here.get("/ai-console/groups").text  # at once
        with here.stream("GET", "/ai-console/log/live") as live:
            assert [chat(url, token) for url in (first, second)] == [200, 200]
            events = (line for line in live.iter_lines() if line.startswith("data: "))
            seen = [json.loads(next(events)[6:]) for _ in range(2)]
        assert {each["status"] for each in seen} == {200}
        # The in-flight calls and the figures of the first page are those of both.
        until(lambda: "In flight by worker:" in here.get("/ai-console/now").text, "both workers")
        here.close()
        there.close()
