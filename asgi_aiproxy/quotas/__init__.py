"""Limits and budgets of callers: admitted before a call, settled after it, in all workers."""

from __future__ import annotations
