"""`python -m asgi_aiproxy serve` as used by an operator: workers, reloads, TLS, its own options."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from asgi_aiproxy.testing import serve
from tests.support.socket_client import Caller

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name == "nt", reason="sends signals")]

ROOT = Path(__file__).parents[2]
LONG = 60.0


@dataclass
class Served:
    """A running `serve`."""

    process: asyncio.subprocess.Process
    port: int
    config: Path
    lines: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())
            self._news.set()
        self._news.set()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def logged(self, words: str, times: int = 1) -> str:
        """Wait for a line that contains `words`; returns the last one."""
        async with asyncio.timeout(LONG):
            while len(found := [line for line in self.lines if words in line]) < times:
                assert self.process.returncode is None, self.output
                self._news.clear()
                await self._news.wait()
        return found[-1]

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    async def ask(self, model: str, token: str = "t-1", **options: Any) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **options}
        async with httpx2.AsyncClient() as client:
            return await client.post(
                f"http://127.0.0.1:{self.port}/v1/chat/completions",
                json=body,
                headers={"authorization": f"Bearer {token}"},
                timeout=LONG,
            )


@asynccontextmanager
async def served(
    folder: Path, config: str, *options: str, workers: int = 1
) -> AsyncIterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    path = folder / "aiproxy.toml"
    path.write_text(config)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIPROXY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asgi_aiproxy", "serve", "--config", str(path)),
        *("--port", str(port), "--workers", str(workers), *options),
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    gateway = Served(process, port, path)
    reading = asyncio.create_task(gateway.read())
    try:
        await gateway.logged("Application startup complete", workers)
        if workers == 1:
            await gateway.logged("running on")
        yield gateway
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(LONG):
                    await process.wait()
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        await reading


def raw_request(model: str, **members: Any) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}], **members})
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer t-1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@dataclass
class Vendor:
    """A vendor with OpenAI's chat API; streams wait in the middle until `go_on` is set."""

    models: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        requested = json.loads(body)
        self.models.append(requested["model"])
        streamed = requested.get("stream", False)
        kind = b"text/event-stream" if streamed else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        usage = {"prompt_tokens": 10, "completion_tokens": 1000, "total_tokens": 1010}
        if not streamed:
            message = {"role": "assistant", "content": "Hello"}
            answer = self.chunk(requested, message=message, finish_reason="stop", usage=usage)
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
            return
        await self.event(
            send, self.chunk(requested, delta={"role": "assistant", "content": "Hello"})
        )
        await self.go_on.wait()
        await self.event(send, self.chunk(requested, delta={"content": " again"}))
        await self.event(send, self.chunk(requested, delta={}, finish_reason="stop", usage=usage))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def chunk(self, requested: Any, usage: Any = None, **choice: Any) -> dict[str, Any]:
        choices = [{"index": 0, "finish_reason": None, **choice}]
        name = "chat.completion.chunk" if requested.get("stream") else "chat.completion"
        said = {"id": "1", "object": name, "created": 1, "model": requested["model"]}
        return {**said, "choices": choices, **({"usage": usage} if usage else {})}

    async def event(self, send: Any, event: dict[str, Any]) -> None:
        body = b"data: " + json.dumps(event).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})


def configuration(
    vendor: str,
    *,
    route: str = "old",
    rate: float = 1.0,
    budget: float = 1.0,
    top: str = "",
) -> str:
    """`rate`: dollars per million output tokens; an answer has a thousand of them."""
    return f"""
{top}
[providers.openai]
base_url = "{vendor}/v1"
keys = ["sk-1"]
[routes]
"{route}" = ["openai/gpt-4o"]
[prices]
"openai/*" = {{ input = 0.0, output = {rate} }}
[[tokens]]
token = "t-1"
name = "team-1"
budget_usd = {budget}
"""


DONE = "reload: the new configuration is in use"
REFUSED = "reload: the configuration in use stays"


async def test_a_reload_changes_a_route_and_a_price_and_no_stream_is_lost(tmp_path: Path) -> None:
    mock = Vendor()
    async with (
        serve(mock) as vendor,
        served(tmp_path, configuration(vendor, rate=1.0)) as gateway,
    ):
        caller = await Caller.to(gateway.port)
        caller.say(raw_request("old", stream=True))
        assert (await caller.head()).status == 200
        await caller.until(b"Hello")

        gateway.config.write_text(configuration(vendor, route="new", rate=100.0))
        gateway.hang_up()
        await gateway.logged(DONE)
        assert (await gateway.ask("new", max_tokens=1000)).status_code == 200
        assert (await gateway.ask("old", max_tokens=1000)).status_code == 404
        assert "cost=$0.100000" in await gateway.logged("usage: done")

        mock.go_on.set()
        assert b" again" in await caller.until(b"[DONE]")
        assert "cost=$0.001000" in await gateway.logged("usage: done", 2)
        caller.leave()


async def test_what_was_spent_of_a_budget_in_memory_is_spent_after_a_reload(tmp_path: Path) -> None:
    mock = Vendor()
    async with (
        serve(mock) as vendor,
        served(tmp_path, configuration(vendor, rate=100.0, budget=0.15)) as gateway,
    ):
        assert (await gateway.ask("old", max_tokens=1000)).status_code == 200
        gateway.config.write_text(configuration(vendor, route="new", rate=100.0, budget=0.15))
        gateway.hang_up()
        await gateway.logged(DONE)
        refused = await gateway.ask("new", max_tokens=1000)
        assert refused.status_code == 429
        assert "budget" in refused.text


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("[routes", "is not valid TOML"),
        ("attempst = 3", "did you mean 'attempts'"),
        ('[routes]\n"m" = ["unknown"]', "there is no provider 'unknown'"),
        (None, "cannot be read"),
    ],
)
async def test_a_broken_file_changes_nothing_and_says_so(
    broken: str | None, said: str, tmp_path: Path
) -> None:
    mock = Vendor()
    async with (
        serve(mock) as vendor,
        served(tmp_path, configuration(vendor)) as gateway,
    ):
        if broken is None:
            gateway.config.unlink()
        else:
            gateway.config.write_text(broken)
        gateway.hang_up()
        line = await gateway.logged(REFUSED)
        assert said in line
        assert "ERROR" in line
        assert (await gateway.ask("old", max_tokens=10)).status_code == 200
        gateway.config.write_text(configuration(vendor, route="new"))
        gateway.hang_up()
        await gateway.logged(DONE)
        assert (await gateway.ask("new", max_tokens=10)).status_code == 200


async def test_a_change_of_the_store_is_logged_as_requiring_a_restart(tmp_path: Path) -> None:
    mock = Vendor()
    async with (
        serve(mock) as vendor,
        served(tmp_path, configuration(vendor)) as gateway,
    ):
        top = 'redis_url = "redis://127.0.0.1:1/0"'
        gateway.config.write_text(configuration(vendor, route="new", top=top))
        gateway.hang_up()
        assert "WARNING" in await gateway.logged("redis_url has changed; restart the server")
        await gateway.logged(DONE)
        assert (await gateway.ask("new", max_tokens=10)).status_code == 200


async def test_several_workers_share_limits_over_redis_and_are_replaced_one_after_another(
    tmp_path: Path, redis_url: str
) -> None:
    mock = Vendor()
    top = f'redis_url = "{redis_url}"\nredis_prefix = "{tmp_path.name}-{os.getpid()}"'
    async with (
        serve(mock) as vendor,
        served(
            tmp_path,
            configuration(vendor, rate=100.0, budget=0.35, top=top),
            workers=2,
        ) as gateway,
    ):
        answers = [await gateway.ask("old", max_tokens=1000) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]

        gateway.config.write_text("[routes")
        gateway.hang_up()
        assert "is not valid TOML" in await gateway.logged(REFUSED)
        assert (await gateway.ask("old", max_tokens=1000)).status_code == 429

        changed = configuration(vendor, route="new", rate=1.0, budget=0.35, top=top)
        gateway.config.write_text(changed)
        gateway.hang_up()
        await gateway.logged("Application startup complete", 4)
        await gateway.logged("Finished server process", 2)
        assert (await gateway.ask("new", max_tokens=1000)).status_code == 200
        assert (await gateway.ask("old", max_tokens=1000)).status_code == 404
        assert "Traceback" not in gateway.output


async def test_several_workers_without_redis_cause_a_warning(tmp_path: Path) -> None:
    config = configuration("http://127.0.0.1:1")
    async with served(tmp_path, config, workers=2) as gateway:
        warnings = [line for line in gateway.lines if "WARNING" in line and "workers:" in line]
        assert len(warnings) == 1
        assert "Set redis_url to share them" in warnings[0]
    assert gateway.process.returncode == 0, gateway.output


async def test_several_workers_with_a_store_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        configuration("http://127.0.0.1:1", top=f'store_file = "{tmp_path}/state"')
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asgi_aiproxy", "serve", "--config", str(tmp_path / "a.toml")),
        *("--workers", "2"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert b"set redis_url instead" in error


async def test_it_serves_tls_and_trusts_the_configured_reverse_proxies(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    config = configuration("http://127.0.0.1:1") + 'networks = ["10.1.0.0/16"]\n'
    tls = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    options = (*tls, "--forwarded-allow-ips", "127.0.0.1", "--root-path", "/gate")
    async with served(tmp_path, config, *options, "--log-level", "debug") as gateway:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with httpx2.AsyncClient(
            verify=context, base_url=f"https://127.0.0.1:{gateway.port}"
        ) as client:
            assert (await client.get("/health")).status_code == 200
            ours = {"authorization": "Bearer t-1", "x-forwarded-for": "10.1.2.3"}
            assert (await client.get("/v1/models", headers=ours)).status_code == 200
            other = {**ours, "x-forwarded-for": "10.2.2.3"}
            assert (await client.get("/v1/models", headers=other)).status_code == 403


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ssl-certfile", "nowhere.pem"), b"the PEM file 'nowhere.pem' does not exist"),
        (("--ssl-keyfile", "key.pem"), b"also requires --ssl-certfile"),
        (("--workers", "0"), b"must be an integer from 1 to 1024"),
        (("--log-level", "loud"), b"invalid choice"),
    ],
)
async def test_invalid_options_are_named(options: tuple[str, ...], said: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asgi_aiproxy", "serve", *options),
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert said in error
