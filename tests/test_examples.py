"""The examples run: they answer, and the demo shows what it promises."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from examples.litestar_app.app import create_app as litestar_app
from examples.starlette_app.app import create_app as starlette_app

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor in ("OPENAI", "ANTHROPIC", "GEMINI"):
        monkeypatch.delenv(f"{vendor}_API_KEY", raising=False)


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-flash", "smart"])
async def test_the_starlette_example_answers_for_every_vendor(model: str) -> None:
    async with serve(MockProvider(Answer(text="Hello"))) as mock, serve(starlette_app(mock)) as url:
        client = openai.AsyncOpenAI(base_url=f"{url}/ai/v1", api_key="demo-token", max_retries=0)
        async with client:
            answer = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Hi"}]
            )
    assert answer.choices[0].message.content == "Hello"


async def test_the_litestar_example_authenticates_its_users_and_falls_back() -> None:
    mock = MockProvider(Answer(text="Hello"))
    mock.on("anthropic", *[Fault.status(529)] * 9)
    async with serve(mock) as vendor:
        app = litestar_app(
            ANTHROPIC.using(["a", "b"], base_url=vendor),
            OPENAI.using("c", base_url=vendor + "/v1"),
        )
        async with serve(app) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/ai/v1", api_key="-", max_retries=0)
            async with client:
                ada = client.with_options(default_headers={"x-session": "session-of-ada"})
                answer = await ada.chat.completions.create(
                    model="smart", messages=[{"role": "user", "content": "Hi"}]
                )
                assert answer.choices[0].message.content == "Hello"
                ben = client.with_options(default_headers={"x-session": "session-of-ben"})
                assert [model.id async for model in await ben.models.list()] == ["fast"]
                with pytest.raises(openai.PermissionDeniedError):
                    await ben.chat.completions.create(model="smart", messages=[])
                with pytest.raises(openai.AuthenticationError):
                    await client.models.list()


async def test_the_litestar_example_shows_an_internal_application_behind_key_rotation() -> None:
    async def internal(scope: Any, receive: Any, send: Any) -> None:
        seen = {name.decode(): value.decode() for name, value in scope["headers"]}
        reported = {"path": scope["path"], "key": seen.get("x-report-key"), "mount": None}
        reported["mount"] = seen.get("x-forwarded-prefix")
        body = json.dumps(reported).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with (
        serve(internal) as reports,
        serve(litestar_app(reports=reports)) as url,
        httpx2.AsyncClient(base_url=url) as client,
    ):
        assert (await client.get("/reports/2026/q1")).status_code == 401
        ada = {"x-session": "session-of-ada"}
        answers = [await client.get("/reports/2026/q1", headers=ada) for _ in range(2)]
    assert [answer.json() for answer in answers] == [
        {"path": "/2026/q1", "key": "report-key-1", "mount": "/reports"},
        {"path": "/2026/q1", "key": "report-key-2", "mount": "/reports"},
    ]
    assert [answer.headers["x-auth-id"] for answer in answers] == ["first", "second"]


def test_the_demo_shows_every_vendor_and_ends() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "examples.starlette_app.demo", "--once"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for vendor in ("OpenAI", "Anthropic", "Gemini"):
        assert f"{vendor}, model" in shown.stdout
    assert shown.stdout.count("tokens in") == 3
    assert "/ai-console/" in shown.stdout


async def test_the_console_of_the_starlette_example_is_beside_the_gateway() -> None:
    async with (
        serve(MockProvider()) as mock,
        serve(starlette_app(mock, admin_token="a" * 32)) as url,
        httpx2.AsyncClient(base_url=url, follow_redirects=True) as client,
    ):
        assert "Sign in" in (await client.get("/ai-console/")).text
        headers = {"authorization": f"Bearer {'a' * 32}"}
        explained = await client.get("/ai-admin/explain?model=gpt-4o", headers=headers)
        assert explained.json()["targets"][0]["provider"] == "openai"


def shown(page: str, heading: str) -> list[str]:
    """The shell blocks of a page below a heading."""
    text = (ROOT / "docs" / page).read_text("utf-8").partition(f"## {heading}\n")[2]
    return re.findall(r"```bash\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)


@pytest.mark.skipif(os.name == "nt", reason="runs bash")
def test_the_commands_on_the_page_about_workers_work_without_any_key(redis_url: str) -> None:
    """Both blocks unchanged, on ports and a Redis of the test's own."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            ports.append(str(sock.getsockname()[1]))
    start, call = shown("workers.md", "See it")
    address = redis_url.partition("?")[0]
    start = re.sub(r"redis://127.0.0.1:6379/0", address, start).replace("9100", ports[0])
    start, call = (block.replace("8000", ports[1]) for block in (start, call))
    issue = next(line for line in start.splitlines() if "tokens issue" in line)
    start = start.replace(issue, "")
    script = f"""
set -eu
trap 'kill $(jobs -p)' EXIT
export PATH={Path(sys.executable).parent}:$PATH
{start}
for port in {" ".join(ports)}; do
  until curl -s -o /dev/null http://127.0.0.1:$port/; do sleep 0.1; done
done
export TOKEN=$({issue.partition("#")[0]} | grep -o 'sk-[^ ]*' | head -1)
{call}
"""
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, error
    statuses = re.findall(r"\b(\d{3}) (?!OK|Too Many|Internal|Bad)", out)[:20]  # no log lines
    assert sorted(statuses) == ["200"] * 10 + ["429"] * 10, (out, error)
    assert "gpt-4o-mini" in out


async def test_the_admin_api_of_the_example_keeps_keys_encrypted_or_in_memory(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "root-token")
    headers = {"authorization": "Bearer root-token"}
    for key, url, status in (
        ("", None, 201),
        (Sealer.generate(), redis_url, 201),
        (Sealer.generate(), None, 201),
    ):
        monkeypatch.setenv("SEALING_KEY", key)
        async with (
            serve(starlette_app("http://127.0.0.1:1", url)) as base,
            httpx2.AsyncClient(base_url=base, headers=headers) as client,
        ):
            body = {"secret": "sk-added", "id": "added"}
            answer = await client.post("/ai-admin/providers/openai/keys", json=body)
            assert answer.status_code == status, answer.text
            assert "sk-added" not in answer.text
            await client.delete("/ai-admin/providers/openai/keys/added")
