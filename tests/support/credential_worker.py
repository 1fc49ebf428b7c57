"""A gateway in its own process, whose keys are not sent themselves: credentials are got for them.

`KEYS` has the keys of each vendor: `good`, and `stale` for which there is no credential. Models are
named after both, `<vendor>-good` for example; `<vendor>-alone` is the stale key without another
target.
"""

from __future__ import annotations

import json
import os

from asgi_aiproxy import KeyPool, OpenAIShim, ProviderRouter, RedisStore
from asgi_aiproxy.keys import Sealer
from asgi_aiproxy.providers import COZE, OPENAI, Provider, bedrock, vertex

store = RedisStore(os.environ["STORE"], prefix=os.environ["PREFIX"], timeout=5.0)
sealer = Sealer(os.environ["SEALING_KEY"])
vendor = os.environ["VENDOR"]
VENDORS = {
    "aws": bedrock("us-east-1", base_url=vendor),
    "coze": COZE.using(base_url=vendor),
    "google": vertex("project", base_url=vendor),
}
second = OPENAI.using("sk-2", name="second", base_url=f"{vendor}/v1")


def provider(kind: str, role: str, secret: str) -> Provider:
    name = f"{kind}-{role}"
    return VENDORS[kind].using(KeyPool([secret], name=name, store=store, sealer=sealer), name=name)


routes: dict[str, object] = {}
for kind, keys in json.loads(os.environ["KEYS"]).items():
    routes[f"{kind}-good"] = provider(kind, "good", keys["good"])
    routes[f"{kind}-stale"] = [provider(kind, "stale", keys["stale"]), second]
    routes[f"{kind}-alone"] = provider(kind, "alone", keys["stale"])
app = OpenAIShim(ProviderRouter(routes))
