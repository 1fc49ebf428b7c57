"""What is published and what is installed: declared dependencies, locked versions, archives."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<marker>.*?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def declared(*extras: str) -> list[Requirement]:
    """All that an installation with these extras requires directly."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, EXTRAS[extra]):
            if requirement.name == PROJECT["name"]:
                found += declared(*requirement.extras)
            else:
                found.append(requirement)
    return found


def pins(file: str) -> list[tuple[str, str, Marker | None]]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    matches = [match for line in lines if (match := PIN.match(line))]
    return [
        (canonicalize_name(m["name"]), m["version"], Marker(m["marker"]) if m["marker"] else None)
        for m in matches
    ]


@pytest.mark.parametrize(("file", "extras"), [("lock.txt", list(EXTRAS)), ("demo.txt", ["demo"])])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_locked_versions_satisfy_pyproject(file: str, extras: list[str], python: str) -> None:
    machine = {"python_version": python, "python_full_version": f"{python}.9"}
    locked = {
        name: version
        for name, version, marker in pins(file)
        if marker is None or marker.evaluate({**machine, "sys_platform": "linux"})
    }
    for requirement in [*declared(*extras), *map(Requirement, BUILD)]:
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in {file}: run scripts/update"
        assert version in requirement.specifier, f"{requirement} is not {version}: scripts/update"


@pytest.mark.parametrize("file", ["lock.txt", "demo.txt"])
def test_a_lock_is_of_pins_and_hashes_and_names_no_host(file: str) -> None:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    assert len(lines) > 50
    for before, line in zip(["", *lines], lines, strict=False):
        assert PIN.match(line) or HASH.match(line), line
        assert not (PIN.match(before) and PIN.match(line)), f"{before} has no hash"


def test_the_demo_is_locked_to_the_versions_that_are_tested() -> None:
    tested = {(name, version) for name, version, _ in pins("lock.txt")}
    assert {(name, version) for name, version, _ in pins("demo.txt")} <= tested


# ── imports ──────────────────────────────────────────────────────────────────


def imported(folder: str) -> Iterator[str]:
    """The top-level names of what the modules of a folder import, anywhere in them."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("asgi_aiproxy", [extra for extra in EXTRAS if extra not in ("test", "bench", "demo")]),
        ("tests", ["test"]),
        ("benchmarks", ["bench"]),
    ],
)
def test_all_imported_packages_are_declared(folder: str, extras: list[str]) -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared(*extras)}
    names.add("pytest")  # imports asgi_aiproxy.testing.plugin, not the other way round
    of = packages_distributions()
    ours = {"asgi_aiproxy", "tests", "examples", "benchmarks", *sys.stdlib_module_names}
    ours.add("agents")  # of openai-agents, which scripts/agents installs apart
    for name in sorted(set(imported(folder)) - ours):
        distributions = {canonicalize_name(each) for each in of.get(name, [name])}
        assert distributions & names, f"{folder} imports {name}, of {distributions}"


# ── archives ─────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_source_archive_holds_what_the_readme_names(archives: Path) -> None:
    [archive] = archives.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    readme = (ROOT / "README.md").read_text()
    pages = set(re.findall(r"\]\(([^):#]+)\)", readme))
    scripts = set(re.findall(r"\bscripts/\w+", readme))
    assert len(pages) > 10
    assert len(scripts) >= 2
    assert pages | scripts <= held
    needed = {"LICENSE", "benchmarks/__main__.py", "requirements/lock.txt", "requirements/demo.txt"}
    assert needed <= held


def test_the_text_on_a_package_index_has_no_broken_link(archives: Path) -> None:
    [wheel] = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        [name] = (each for each in files.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(files.read(name))
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "(`docs/callers.md`)" in text
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []
