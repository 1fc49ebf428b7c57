"""Keys from a file, a command or a secret manager, while requests are served."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

import asgi_aiproxy
from asgi_aiproxy import ConfigurationError, Key, KeyPool, OpenAIShim
from asgi_aiproxy.config.factory import build_app
from asgi_aiproxy.config.providers import make_providers
from asgi_aiproxy.config.settings import Settings
from asgi_aiproxy.keys import KeySource, run_command, watch_file
from asgi_aiproxy.keys.sources import parse_keys
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.testing import serve
from tests.support.scripted_upstream import chat_answer

pytestmark = pytest.mark.anyio

FAST = 0.02


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    os.replace(new, path)


async def until(pool: KeyPool, *ids: str) -> None:
    async with asyncio.timeout(30):
        while [*pool.keys] != [*ids]:
            await asyncio.sleep(0.005)


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(30):
        while text not in caplog.text:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sk-1\nsk-2\n", [("", "sk-1"), ("", "sk-2")]),
        ("# old\n\none sk-1\r\n", [("one", "sk-1")]),
        ('["sk-1", {"secret": "sk-2", "id": "b"}]', [("", "sk-1"), ("b", "sk-2")]),
        ('{"secret": "sk-1", "id": "a", "rpm": 5}\n', [("a", "sk-1")]),
        ("\ufeffsk-1", [("", "sk-1")]),
        ("", []),
    ],
)
def test_texts_of_keys_are_lines_or_json(text: str, found: list[tuple[str, str]]) -> None:
    keys = parse_keys(text.encode(), "x")
    assert [key.secret for key in keys] == [secret for _, secret in found]
    assert all(key.id == id for key, (id, _) in zip(keys, found, strict=True) if id)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"a sk-secret c",
        b'["sk-secret"',
        b"[1]",
        b'[{"secret": "sk-secret", "colour": 1}]',
        b'[{"secret": "sk-secret", "rpm": "many"}]',
        b'[{"secret": "sk-secret", "rpm": 0}]',
        b'{"id": "a"}',
    ],
)
def test_an_invalid_text_is_an_error_that_quotes_no_secret(text: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(text, "keys.txt")
    assert "keys.txt" in str(caught.value) or "Key" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


async def test_a_pool_follows_a_file_and_keeps_its_keys_while_that_is_invalid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    write(path, "a sk-1\nb sk-2\n")
    pool = KeyPool([], name="p")
    pool.follow(watch_file(path, interval=FAST))
    async with pool:
        assert [*pool.keys] == ["a", "b"]
        await pool.disable("a")
        lease = await pool.acquire(key_id="b")
        write(path, "a sk-1\nc sk-3\n")
        await until(pool, "a", "c")
        health = {key.id: key.health for key in await pool.status()}
        assert health == {"a": "dead", "c": "ok"}, "a key that stays keeps its health"
        lease.report(200)
        lease.release()
        for broken in ("a sk-1 too many", "", "[1]"):
            write(path, broken)
            await logged(caplog, "keys of pool 'p'")
            assert [*pool.keys] == ["a", "c"]
            caplog.clear()
            write(path, "a sk-1\nc sk-3\n")
            await logged(caplog, "working again")
            assert "sk-" not in caplog.text
            caplog.clear()
        path.unlink()
        write(path, "d sk-4")
        await until(pool, "d")


async def test_a_command_prints_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write(path, "a sk-1")
    script = f"print(open({str(path)!r}).read())"
    pool = KeyPool([], name="p")
    pool.follow(run_command([sys.executable, "-c", script], interval=FAST))
    async with pool:
        assert [*pool.keys] == ["a"]
        write(path, "b sk-2")
        await until(pool, "b")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([sys.executable, "-c", "import sys; print('sk-secret'); sys.exit(3)"], "exit status 3"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "took longer than 0.5 s"),
        (["/no/such/program"], "cannot be run"),
    ],
)
async def test_a_command_that_fails_is_an_error_without_its_output(
    command: list[str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        await first(run_command(command, timeout=0.5 if "sleep" in command[-1] else 30))
    assert "sk-secret" not in str(caught.value)


async def first(source: KeySource) -> Sequence[str | Key]:
    async with aclosing(source()) as lists:  # type: ignore[type-var]
        return await anext(lists)


async def test_a_source_that_raises_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def source() -> AsyncIterator[list[Key]]:
        nonlocal calls
        calls += 1
        yield [Key("sk-1", id=f"k{calls}")]
        if calls < 3:
            raise RuntimeError("the vault is sealed")
        await asyncio.Event().wait()

    pool = KeyPool([], name="p")
    pool.follow(source)
    async with pool:
        await until(pool, "k3")
    assert "the vault is sealed" in caplog.text


async def test_without_a_first_list_the_pool_starts_empty_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def source() -> AsyncIterator[list[Key]]:
        await asyncio.Event().wait()
        yield []

    pool = KeyPool([], name="p")
    pool.follow(source, start_timeout=0.01)
    async with pool:
        assert len(pool) == 0
    assert "none have arrived" in caplog.text


def test_wrong_sources_are_refused_when_they_are_built() -> None:
    for make in (
        lambda: watch_file("x", interval=0),
        lambda: run_command("vault kv get"),
        lambda: run_command([]),
        lambda: KeyPool([], name="p").follow(object()),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError):
            make()


async def test_serve_takes_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write(path, "a sk-1")
    table = {"keys_file": str(path), "keys_interval": FAST}
    made = make_providers(Settings(providers={"openai": table}, anonymous=True), None)  # type: ignore[arg-type]
    pool = made["openai"].keys
    assert pool is not None
    async with pool:
        assert [*pool.keys] == ["a"]
    gateway: Any = build_app(Settings(providers={"openai": table}, anonymous=True))  # type: ignore[arg-type]
    async with gateway:  # it opens the pool
        pass
    both = {**table, "keys": ["sk-1"]}
    with pytest.raises(ConfigurationError, match="takes one of keys, keys_file"):
        make_providers(Settings(providers={"openai": both}, anonymous=True), None)  # type: ignore[arg-type]


async def test_a_swap_under_load_loses_no_request(tmp_path: Path) -> None:
    """Keys are rotated as vendors advise: the new one works, then the old one is revoked."""
    valid = {"sk-0"}
    served: list[str] = []

    async def vendor(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(0.002)
        key = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
        known = key in valid
        body = chat_answer() if known else b'{"error": {"code": "invalid_api_key"}}'
        served.append(key if known else "")
        headers = [(b"content-type", b"application/json")]
        status = 200 if known else 401
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    path = tmp_path / "keys"
    write(path, "0 sk-0")
    pool = KeyPool([], name="p")
    pool.follow(watch_file(path, interval=FAST))
    statuses: list[int] = []
    done = asyncio.Event()

    async def call(gateway: str) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        async with httpx.AsyncClient(base_url=gateway, timeout=30) as client:
            while not done.is_set():
                answer = await client.post("/v1/chat/completions", json=body)
                statuses.append(answer.status_code)

    async with serve(vendor) as url:
        shim = OpenAIShim(OPENAI.using(pool, base_url=f"{url}/v1"))
        async with pool, serve(shim) as gateway, asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(call(gateway))
            for number in range(1, 6):
                valid.add(f"sk-{number}")
                write(path, f"{number} sk-{number}")
                await until(pool, str(number))
                valid.discard(f"sk-{number - 1}")
                count = len(served)
                async with asyncio.timeout(30):
                    while served[count:].count(f"sk-{number}") < 20:
                        await asyncio.sleep(0.002)
            done.set()
    assert set(statuses) == {200}, [status for status in statuses if status != 200]
    assert len(statuses) > 100


# recipes


def recipe(name: str) -> Any:
    """A function of the documentation."""
    page = (Path(asgi_aiproxy.__file__).parents[1] / "docs" / "keys.md").read_text("utf-8")
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if f"def {name}" in block
    ]
    names: dict[str, Any] = {}
    exec(compile(code, "docs/keys.md", "exec"), names)
    return names[name]


def api(expected: str, header: tuple[bytes, bytes], body: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        right = scope["path"] == expected and header in scope["headers"]
        content = json.dumps(body).encode() if right else b"{}"
        start = {"type": "http.response.start", "status": 200 if right else 403, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": content})

    return app


async def test_the_recipe_for_vault() -> None:
    body = {"data": {"data": {"a": "sk-1", "b": "sk-2"}, "metadata": {"version": 3}}}
    app = api("/v1/secret/data/openai", (b"x-vault-token", b"hvs.1"), body)
    async with serve(app) as url:
        keys = await first(recipe("vault_keys")(url, "hvs.1", "secret/data/openai"))
    assert keys == [Key("sk-1", id="a"), Key("sk-2", id="b")]


async def test_the_recipe_for_aws() -> None:
    session = pytest.importorskip("botocore.session")
    stub = pytest.importorskip("botocore.stub")
    client = session.get_session().create_client(
        "secretsmanager",
        region_name="eu-central-1",
        aws_access_key_id="a",
        aws_secret_access_key="s",
    )
    with stub.Stubber(client) as answers:
        answers.add_response(
            "get_secret_value", {"SecretString": '{"a": "sk-1"}'}, {"SecretId": "x"}
        )
        assert await first(recipe("aws_keys")(client, "x")) == [Key("sk-1", id="a")]


async def test_the_recipe_for_google_cloud() -> None:
    oauth = pytest.importorskip("google.oauth2.credentials")
    name = "projects/p/secrets/s/versions/latest"
    data = base64.b64encode(b"a sk-1\nb sk-2\n").decode()
    app = api(f"/v1/{name}:access", (b"authorization", b"Bearer t"), {"payload": {"data": data}})
    async with serve(app) as url:
        keys = await first(recipe("gcp_keys")(oauth.Credentials("t"), name, address=url))
    assert keys == [Key("sk-1", id="a"), Key("sk-2", id="b")]
