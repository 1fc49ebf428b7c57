"""docs/reference.md has the current public names, docs/usage.md the fields of a record."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy.messages import Usage
from asgi_aiproxy.usage.record import Attempt, UsageRecord
from tests.support.stream_fixtures import UPDATE

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "reference.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = script()


def test_the_reference_is_what_signatures_and_docstrings_say() -> None:
    made = REFERENCE.page()
    if UPDATE:
        REFERENCE.PAGE.write_text(made, encoding="utf-8")
    assert REFERENCE.PAGE.read_text("utf-8") == made, "run: python scripts/reference.py"


@pytest.mark.parametrize("package", REFERENCE.PACKAGES)
def test_every_public_name_is_in_the_reference_of_its_package(package: str) -> None:
    text = REFERENCE.PAGE.read_text("utf-8")
    section = text.partition(f"## `{package}`\n")[2].partition("\n## ")[0]
    missing = [n for n in importlib.import_module(package).__all__ if f"`{n}`" not in section]
    assert missing == []


@pytest.mark.parametrize("struct", [UsageRecord, Attempt, Usage])
def test_every_field_of_a_usage_record_is_explained(struct: Any) -> None:
    text = (ROOT / "docs" / "usage.md").read_text("utf-8")
    section = text.partition(f"\n`{struct.__name__}`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(struct.__struct_fields__)
