"""Tools and JSON output for models that do not have them."""

from __future__ import annotations

from asgi_aiproxy.emulation.emulation import Emulation, Feature

__all__ = ["Emulation", "Feature"]
