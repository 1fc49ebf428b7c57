"""The command `explain`, and the drill of the operation page: from a request's id to its cause."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asgi_aiproxy
from asgi_aiproxy.config.factory import build_app
from asgi_aiproxy.config.settings import load
from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.cli.conftest import Run
from tests.support import asgi_client as asgi

PAGE = Path(asgi_aiproxy.__file__).parents[1] / "docs" / "operate.md"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


def call_gateway(configured: Callable[[str], Path], token: str, *steps: Any) -> asgi.Answer:
    """One call through the configured gateway, to a mock that takes these steps."""

    async def go() -> asgi.Answer:
        mock = MockProvider(Answer("Hi"))
        mock.script(*steps)
        async with serve(mock) as url:
            configured(url)
            app: Any = build_app(load())
            async with app:
                headers = {"authorization": f"Bearer {token}"}
                path = "/v1/chat/completions"
                return await asgi.request(app, "POST", path, BODY, headers=headers)

    return asyncio.run(go())


def test_a_user_reports_a_503_and_one_command_names_the_cause(
    run: Run, configured: Callable[[str], Path]
) -> None:
    token = run("tokens", "issue", "--name", "ann", "--json").json["secret"]
    answer = call_gateway(configured, token, *[Fault.status(503)] * 3, Fault.status(400))
    drill = PAGE.read_text("utf-8").partition("## A user reports a 503")[2].partition("\n## ")[0]
    command = next(line for line in drill.splitlines() if "--request-id" in line)
    assert "aiproxy-request-id" in drill
    id = answer.header("aiproxy-request-id")
    assert id is not None
    arguments = shlex.split(command)[3:]
    arguments[arguments.index("--request-id") + 1] = id
    found = run(*arguments)
    assert (found.status, found.err) == (0, "")
    assert re.search(r"openai failed \(HTTP \d+", found.out)
    assert found.out.count("with key file: HTTP 503") >= 2
    assert "sk-of-the-file" not in found.out
    assert run(*arguments, "--json").json["record"]["request_id"] == id


def test_a_request_that_is_not_in_the_log_is_an_error_that_says_why(run: Run) -> None:
    found = run("explain", "--request-id", "unknown")
    assert (found.status, found.out) == (1, "")
    assert "may have been refused before" in found.err


def test_a_model_is_explained_for_a_caller(run: Run) -> None:
    issued = run("tokens", "issue", "--name", "ann", "--rpm", "5", "--models", "gpt-4o", "--json")
    assert issued.status == 0, issued.err
    found = run("explain", "gpt-4o", "--principal", "ann")
    assert "It would be sent to openai." in found.out
    assert re.search(r"requests per minute +5 +0 +1 +no", found.out)
    assert re.search(r"openai +file +yes +ok", found.out)
    refused = run("explain", "gpt-5", "--principal", "ann")
    assert "would be refused with HTTP 403" in refused.out
    run("keys", "disable", "openai", "file")
    disabled = run("explain", "gpt-4o", "--json").json
    assert disabled["refusal"]["status"] == 503
    assert disabled["targets"][0]["keys"][0]["reason"] == "disabled"


def test_a_model_or_a_request_is_needed(run: Run) -> None:
    assert run("explain").status == 2
    assert run("explain", "m", "--request-id", "r").status == 2
