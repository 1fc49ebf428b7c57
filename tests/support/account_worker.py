"""A gateway in its own process, like a worker of a server."""

from __future__ import annotations

import os
from typing import Any

from asgi_aiproxy import Authenticate, Ledger, OpenAIShim, Quota, RedisStore, stored_tokens
from asgi_aiproxy.providers import OPENAI
from tests.support.metered_gateway import PRICES

store = RedisStore(os.environ["STORE"], prefix=os.environ["PREFIX"], timeout=5.0)
shim = OpenAIShim(
    OPENAI.using("sk-1", base_url=f"{os.environ['PROVIDER']}/v1"), record=Ledger(store)
)
app: Any = Authenticate(
    Quota(shim, store=store, prices=PRICES, ttl=1.5), verify=stored_tokens(store)
)
