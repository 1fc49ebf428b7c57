"""Small tables: `[timeouts]`, `[request_limits]`, `[load_shedding]`, `[responses]` ..."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class TimeoutSettings(_Table):
    """Six timeouts in seconds, see `asgi_aiproxy.upstream.Timeouts`."""

    pool: float = Field(default=10.0, gt=0)
    connect: float = Field(default=10.0, gt=0)
    first: float | None = Field(default=600.0, gt=0)
    idle: float | None = Field(default=180.0, gt=0)
    total: float | None = Field(default=None, gt=0)
    body: float | None = Field(default=60.0, gt=0)


class RequestLimitSettings(_Table):
    """Maximum size of a request that is translated, see `asgi_aiproxy.RequestLimits`."""

    messages: int = Field(default=10_000, ge=1)
    parts: int = Field(default=20_000, ge=1)
    tools: int = Field(default=2_000, ge=1)
    depth: int = Field(default=200, ge=1)


class LoadSheddingSettings(_Table):
    """When requests are refused since the process is overloaded, see
    `asgi_aiproxy.middleware.LoadShedder`.

    `max_lag` and `retry_after` are in seconds, `max_held_bytes` in bytes for each worker. `groups`
    and `principals` give priorities by patterns of names and ids.
    """

    max_lag: float = Field(default=0.05, gt=0)
    max_in_flight: int = Field(default=1000, ge=1)
    max_held_bytes: int | None = Field(default=None, ge=1)
    retry_after: float = Field(default=2.0, gt=0)
    groups: dict[str, int] = {}
    principals: dict[str, int] = {}


class ResponsesSettings(_Table):
    """State and WebSockets of the Responses API, see `asgi_aiproxy.ResponseState`.

    `stash_seconds` and `websocket_idle` are in seconds, `stash_max_bytes` in bytes.
    """

    stash: bool = False
    stash_seconds: float = Field(default=86_400.0, gt=0)
    stash_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    websockets: bool = True
    websocket_idle: float = Field(default=600.0, gt=0)


class MatcherSettings(_Table):
    """A rule that rewrites responses (`asgi_aiproxy.hooks.TextRule`), named as in chatgpt-adapter.

    `content` is `PATTERN:REPLACEMENT`, `len` the number of characters after `find`.
    """

    find: str = Field(min_length=1)
    content: str
    end: str = ""
    len: int = Field(default=5, ge=0)
    desc: str = ""
