"""One call from request to usage record, as shims, the proxy and WebSockets make it."""

from __future__ import annotations
