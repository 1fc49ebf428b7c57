"""Files and batches through One API's relay: the users of a channel share the vendor's account."""

from __future__ import annotations

import json

import pytest

from tests.compat.oneapi_client import OneAPI
from tests.support.compat_vendors import Vendors
from tests.support.scripted_upstream import answers

pytestmark = pytest.mark.anyio


async def test_a_user_has_no_access_to_files_of_another_user() -> None:
    file = {"id": "file-1", "object": "file", "purpose": "batch"}
    listed = {"object": "list", "data": [file], "has_more": False}
    steps = [answers(json.dumps(body).encode()) for body in (file, listed, listed, file)]
    one = OneAPI(Vendors(*steps))
    await one.channel()
    keys = []
    for name in ("alice", "bob"):
        _, access = await one.user(name)
        keys.append(f"Bearer {(await one.token(access))[1]}")
    alice, bob = keys
    assert (await one.answer("POST", "/v1/files", {"x": 1}, alice)).json["id"] == "file-1"
    assert (await one.answer("GET", "/v1/files", token=alice)).json["data"] == [file]
    assert (await one.answer("GET", "/v1/files", token=bob)).json["data"] == []
    other = OneAPI(one.vendors, one.store)  # another worker
    assert (await other.answer("GET", "/v1/files/file-1", token=alice)).json == file
    sent = len(one.vendors.requests)
    for method, path, status in (
        ("GET", "/v1/files/file-1/content", 404),
        ("DELETE", "/v1/files/file-1", 404),
        ("GET", "/v1/batches/batch-1", 404),
        ("DELETE", "/v1/models/ft-1", 403),
        ("GET", "/v1/fine_tuning/jobs", 403),
        ("GET", "/v1/vector_stores", 403),
    ):
        answer = await one.answer(method, path, token=bob)
        assert (answer.status, answer.json["error"]["type"]) == (status, "one_api_error"), path
    assert len(one.vendors.requests) == sent
