"""The pages about moving: their configurations build, and their requests are answered as shown."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.testing import MockProvider, serve_in_thread
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["aiproxy", "one-api", "chatgpt-to-api", "chatgpt-adapter"]
CURL = re.compile(r"^curl .*?# (\d{3})$", re.MULTILINE | re.DOTALL)
VERSIONED = {"openai", "custom", "interpreter"}  # whose base URL ends with the version


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_in_thread(MockProvider()) as url:
        yield url


def requests_of(page: str) -> list[tuple[str, int]]:
    """The curl commands of a page, each with the status that it is to get."""
    text = (DOCS / "moving" / f"{page}.md").read_text("utf-8")
    return [(found[0].rpartition("#")[0], int(found[1])) for found in CURL.finditer(text)]


async def run(app: Any, command: str) -> asgi.Answer:
    words = shlex.split(command)[1:]
    method, headers, data, address = "", {}, "", ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name.lower()] = value
        elif word == "-d":
            data = words.pop(0)
        else:
            address = word
    headers.setdefault("content-type", "application/x-www-form-urlencoded" if data else "")
    method = method or ("POST" if data else "GET")
    return await asgi.request(app, method, urlsplit(address).path, data.encode(), headers=headers)


@pytest.mark.parametrize("page", PAGES)
async def test_documented_requests_are_answered_as_shown(
    page: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (DOCS / "moving" / f"{page}.md").read_text("utf-8")
    toml = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    for name in re.findall(r"env:(\w+)", toml):
        monkeypatch.setenv(name, f"value-of-{name}-for-tests")
    monkeypatch.setenv("AIPROXY_SEALING_KEY", Sealer.generate())
    values = tomllib.loads(toml)
    for name, table in values.get("providers", {}).items():
        table["base_url"] = f"{url}/v1" if name in VERSIONED else url
    if "store_file" in values:
        values["store_file"] = str(tmp_path / "state")
    app = build(Settings(**values))
    known = {
        "ROOT": "value-of-ONEAPI_ROOT_PASSWORD-for-tests",
        "ADMIN": "value-of-ADMIN_PASSWORD-for-tests",
        "CALLER": "value-of-CALLER_KEY-for-tests",
    }
    commands = requests_of(page)
    assert len(commands) >= 8
    async with asgi.lifespan(app):
        for command, status in commands:
            sent = command.replace("https://mirror.example", url)
            for name, value in known.items():
                sent = sent.replace(f"${name}", value)
            answer = await run(app, sent)
            assert answer.status == status, f"{command}\n{answer.body.decode()}"
            is_json = (answer.header("content-type") or "").startswith("application/json")
            data = answer.json.get("data") if is_json else None
            if isinstance(data, dict) and data.get("key"):
                known["TOKEN"] = f"sk-{data['key']}"


IDS = {"Z": 144, "O": 219, "C": 60, "A": 129}


def test_every_capability_has_exactly_one_line() -> None:
    page = (DOCS / "predecessors.md").read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z]\d{3}) \| ([\w ]+) \| (.+) \|$", page, re.MULTILINE)
    wanted = [f"{letter}{number:03d}" for letter, count in IDS.items()
              for number in range(1, count + 1)]  # fmt: skip
    assert [id for id, _, _ in rows] == wanted
    verdicts = {"served", "changed", "host", "410", "403", "left out"}
    assert {verdict for _, verdict, _ in rows} == verdicts
    assert all(len(text) > 5 for _, _, text in rows)


REFERENCE = DOCS.parents[1] / "shared" / "reference" / "features.md"


@pytest.mark.skipif(not REFERENCE.exists(), reason="the list of capabilities is not here")
def test_the_lines_are_those_of_the_list_of_capabilities() -> None:
    listed = re.findall(r"^\| ([A-Z]\d{3}) \|", REFERENCE.read_text("utf-8"), re.MULTILINE)
    page = (DOCS / "predecessors.md").read_text("utf-8")
    assert re.findall(r"^\| ([A-Z]\d{3}) \|", page, re.MULTILINE) == listed
