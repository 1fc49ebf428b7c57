"""Settings from a file and the environment, and the app that they describe."""

from __future__ import annotations
