"""Tests of the configuration run without the environment variables of this machine."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AIPROXY_"):
            monkeypatch.delenv(name)
