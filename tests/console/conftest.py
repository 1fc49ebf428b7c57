"""Stores for the tests of the console, whose templates are compiled once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2
import pytest

from tests.admin.conftest import store

__all__ = ["store"]


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Keep the code of templates: compiling takes longer than most tests do."""
    original = jinja2.Environment.compile

    known: dict[object, Any] = {}

    def compile_once(
        self: jinja2.Environment, source: str, name: str | None, filename: str | None
    ) -> Any:
        key = source, name, self.filters["usd"].__qualname__  # what is passed to it differs
        if key not in known:
            known[key] = original(self, source, name, filename)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", compile_once)
        yield
