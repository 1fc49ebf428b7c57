"""The examples in README and docs work unchanged."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[object]:
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (name, text) in enumerate(BLOCK.findall(page.read_text("utf-8")))
        if name == language
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("docs")  # where Litestar looks for what annotations mean
    monkeypatch.setitem(sys.modules, "docs", module)
    exec(compile(code, "docs", "exec"), vars(module))


@pytest.mark.parametrize("text", blocks("toml"))
def test_configuration_examples_build(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from asgi_aiproxy.config.settings import Settings, build

    for name in re.findall(r"env:(\w+)", text):
        monkeypatch.setenv(name, f"value-of-{name}")
    assert callable(build(Settings(**tomllib.loads(text))))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_existing_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
