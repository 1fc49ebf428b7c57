"""One request from its attempts to its usage record, as shims, proxy and WebSockets use it."""

from __future__ import annotations
