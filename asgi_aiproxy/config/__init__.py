"""Settings from a TOML file and the environment, and the app that they describe."""

from __future__ import annotations
