"""The examples are real: they answer, and the demo shows what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import pytest

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


async def test_the_litestar_example_knows_its_users_and_falls_back() -> None:
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


def test_the_demo_shows_every_vendor_and_ends() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "examples.starlette_app.demo", "--once"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for vendor in ("OpenAI", "Anthropic", "Gemini"):
        assert f"{vendor}, model" in shown.stdout
    assert shown.stdout.count("tokens in") == 3
