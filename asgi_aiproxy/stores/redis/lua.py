"""What scripts inside Redis have in common.

Each runs in one step. Times are in milliseconds, by the server's clock. Numbers are given to
commands as numbers, for `tostring` would round them to 14 digits, and they are negated as `0 - x`,
for a "-0" is no integer to Redis.
"""

from __future__ import annotations

import hashlib

from asgi_aiproxy.stores.base import ONCE


class Script:
    """A script, and the name by which the server knows it once it has seen it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# A version never comes twice, also not after the server has lost all data.
CHANGED = """
local function changed(key)
  local time = redis.call('TIME')
  local version = time[1] * 1000000 + time[2]
  local before = tonumber(redis.call('GET', key) or 0)
  if version <= before then version = before + 1 end
  redis.call('SET', key, version)
end
"""

FIRST = f"""
local function first(key)
  return redis.call('SET', key, 1, 'NX', 'PX', {int(ONCE * 1000)}) ~= false
end
"""
