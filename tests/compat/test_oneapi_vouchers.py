"""One API's redemption codes are vouchers of the gateway, which may be redeemed elsewhere, too."""

from __future__ import annotations

import pytest

from asgi_aiproxy.accounts import VoucherError, Vouchers
from tests.compat.oneapi_client import OneAPI

pytestmark = pytest.mark.anyio


async def test_a_code_that_was_disabled_or_removed_cannot_be_redeemed_elsewhere() -> None:
    one = OneAPI()
    id, _ = await one.user("alice")
    codes = await one.call("POST", "/api/redemption/", {"name": "n", "count": 2, "quota": 500})
    ids = {row["key"]: row["id"] for row in await one.call("GET", "/api/redemption/")}
    disabled, removed = codes
    body = {"id": ids[disabled], "status": 2}
    await one.call("PUT", "/api/redemption/?status_only=1", body)
    await one.call("DELETE", f"/api/redemption/{ids[removed]}")
    vouchers = Vouchers(one.store)
    for code in codes:
        with pytest.raises(VoucherError, match=r"disabled|invalid"):
            await vouchers.redeem(code, "account", f"user-{id}")
    await one.call("PUT", "/api/redemption/?status_only=1", {**body, "status": 1})
    assert (await vouchers.redeem(disabled, "account", f"user-{id}")).done
