"""Explanations over the admin API."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from asgi_aiproxy import AIShim, Principal, ProviderRouter, Quota
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.stores import Store
from asgi_aiproxy.usage.record import Outcome
from tests.admin.test_usage import keep, record

pytestmark = pytest.mark.anyio


async def test_a_request_is_explained_before_and_after(store: Store, make: Any) -> None:
    shim = AIShim(ProviderRouter({"m": OPENAI.using("sk-1")}))
    explain = partial(shim.explain, limits=Quota(shim, store=store).explain)
    client = make(store, explain=explain, callers={"job": Principal("job", models=("x",))})
    found = (await client("GET", "/explain?model=m&size=10")).json
    assert found["targets"][0]["provider"] == "openai"
    assert "refusal" not in found
    assert (await client("GET", "/explain?model=m&principal=job")).json["refusal"]["status"] == 403
    assert (await client.error("GET", "/explain?model=m&principal=who"))[0] == 404
    body = {"name": "ann", "enabled": False}
    assert (await client("POST", "/tokens", body)).status in (200, 201)
    refused = (await client("GET", "/explain?model=m&principal=ann")).json["refusal"]
    assert (refused["status"], refused["code"]) == (401, "api_key_disabled")
    failed = {"outcome": Outcome.REFUSED, "error": "Too big.", "request_id": "req-7"}
    await keep(store, record(1), record(2, **failed))
    done = (await client("GET", "/explain/request?id=req-7")).json
    assert done["cause"] == "No provider was called: Too big."
    assert done["record"]["id"] == "r2"
    assert (await client.error("GET", "/explain/request?id=none"))[0] == 404


async def test_without_an_explainer_the_error_says_what_to_set(store: Store, make: Any) -> None:
    answer = await make(store)("GET", "/explain?model=m")
    assert answer.status == 501
    assert "explain=" in answer.json["error"]["message"]
