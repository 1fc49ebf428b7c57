"""The table `[responses]`: what is remembered of responses, and where WebSockets are served."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_aiproxy import ConfigurationError
from asgi_aiproxy.config.settings import Settings, build
from asgi_aiproxy.testing import MockProvider, serve
from tests.support import asgi_client as asgi

pytestmark = pytest.mark.anyio


def settings(url: str = "http://127.0.0.1:1", **more: Any) -> Settings:
    return Settings(providers={"anthropic": {"base_url": url, "keys": ["sk-1"]}}, **more)


async def continued(app: Any) -> asgi.Answer:
    """The answer to a request that refers to another one."""
    body: dict[str, Any] = {"model": "claude-sonnet-4-5", "input": "Hi"}
    first = await asgi.request(app, "POST", "/v1/responses", body)
    assert first.status == 200
    body["previous_response_id"] = first.json["id"]
    return await asgi.request(app, "POST", "/v1/responses", body)


async def test_the_stash_is_off_unless_it_is_switched_on(tmp_path: Any) -> None:
    async with serve(MockProvider()) as url:
        answer = await continued(build(settings(url)))
        assert answer.status == 400
        assert "responses.stash" in answer.json["error"]["message"]
        more: list[dict[str, Any]] = [{}, {"store_file": f"{tmp_path}/state", "anonymous": True}]
        for options in more:
            app: Any = build(settings(url, responses={"stash": True}, **options))
            async with app:
                assert (await continued(app)).status == 200


async def test_a_small_stash_keeps_small_conversations() -> None:
    async with serve(MockProvider()) as url:
        app: Any = build(settings(url, responses={"stash": True, "stash_max_bytes": 10}))
        async with app:
            answer = await continued(app)
            assert (answer.status, answer.json["error"]["code"]) == (
                404,
                "previous_response_not_found",
            )


def test_a_stash_in_redis_needs_a_sealing_key() -> None:
    given: dict[str, Any] = {"redis_url": "redis://127.0.0.1:1", "responses": {"stash": True}}
    with pytest.raises(ConfigurationError, match="sealing_keys"):
        build(settings(**given))
    assert build(settings(**given, sealing_keys=["a passphrase of some length"]))
    assert build(settings(redis_url="redis://127.0.0.1:1"))


@pytest.mark.parametrize(
    "table",
    [{"stash_seconds": 0}, {"stash_max_bytes": 0}, {"websocket_idle": 0}, {"stashes": True}],
    ids=str,
)
def test_wrong_values_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(table))):
        settings(responses=table)
