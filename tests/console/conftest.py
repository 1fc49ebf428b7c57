"""Stores for the tests of the console."""

from __future__ import annotations

from tests.admin.conftest import store

__all__ = ["store"]
