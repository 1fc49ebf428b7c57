"""A gateway in its own process whose keys are apps of Coze: `good`, and `stale` without a grant."""

from __future__ import annotations

import os

from asgi_aiproxy import KeyPool, OpenAIShim, ProviderRouter, RedisStore
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.providers import COZE, OPENAI, Provider

store = RedisStore(os.environ["STORE"], prefix=os.environ["PREFIX"], timeout=5.0)
sealer = Sealer(os.environ["SEALING_KEY"])
vendor = os.environ["VENDOR"]


def coze(name: str, secret: str) -> Provider:
    pool = KeyPool([secret], name=name, store=store, sealer=sealer)
    return COZE.using(pool, name=name, base_url=vendor)


second = OPENAI.using("sk-2", name="second", base_url=f"{vendor}/v1")
app = OpenAIShim(
    ProviderRouter(
        {
            "good": coze("good", os.environ["GOOD_APP"]),
            "stale": [coze("stale", os.environ["STALE_APP"]), second],
            "alone": coze("alone", os.environ["STALE_APP"]),
        }
    )
)
