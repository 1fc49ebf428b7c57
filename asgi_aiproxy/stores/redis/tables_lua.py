"""Scripts for tables, holds, sums and logs."""

from __future__ import annotations

from asgi_aiproxy.stores.redis.lua import CHANGED, CLOCK, FIRST, Script

# KEYS: holds, version. A hold is `until value`.
HOLD = Script(
    CLOCK
    + CHANGED
    + """
local ends = now + tonumber(ARGV[2])
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and tonumber(string.match(held, '^%S+')) >= ends then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', ends) .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < ends - now then redis.call('PEXPIREAT', KEYS[1], ends) end
changed(KEYS[2])
return 1
"""
)

LIFT = Script(
    CLOCK
    + CHANGED
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if tonumber(string.match(held, '^%S+')) <= now then return 0 end
changed(KEYS[2])
return 1
"""
)

# Returned: name, milliseconds left, value, for each.
HOLDS = Script(
    CLOCK
    + """
local found, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local ends, value = string.match(flat[i + 1], '^(%S+) (.*)$')
  local left = tonumber(ends) - now
  if left > 0 then
    found[#found + 1] = flat[i]
    found[#found + 1] = left
    found[#found + 1] = value
  else
    redis.call('HDEL', KEYS[1], flat[i])
  end
end
return found
"""
)

# KEYS: rows, order, version. ARGV: how many are expected; key, flag, value for each of these, and
# for each row to write. Flag 0: no row, 1: this value.
PUT = Script(
    CHANGED
    + """
local wrong, arg = {}, 2
for _ = 1, tonumber(ARGV[1]) do
  local found = redis.call('HGET', KEYS[1], ARGV[arg])
  local right = not found
  if ARGV[arg + 1] == '1' then right = found == ARGV[arg + 2] end
  if not right then wrong[#wrong + 1] = ARGV[arg] end
  arg = arg + 3
end
if #wrong > 0 then return wrong end
while arg < #ARGV do
  if ARGV[arg + 1] == '1' then
    redis.call('HSET', KEYS[1], ARGV[arg], ARGV[arg + 2])
    redis.call('ZADD', KEYS[2], 0, ARGV[arg])
  else
    redis.call('HDEL', KEYS[1], ARGV[arg])
    redis.call('ZREM', KEYS[2], ARGV[arg])
  end
  arg = arg + 3
end
changed(KEYS[3])
return wrong
"""
)

DROP = Script(
    CHANGED
    + """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
changed(KEYS[3])
return 1
"""
)

# Returned: key, value, for each.
PAGE = Script(
    """
local after = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local found = {}
for _, key in ipairs(
  redis.call('ZRANGEBYLEX', KEYS[2], after, '+', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', KEYS[1], key)
end
return found
"""
)

# KEYS: sums, a mark if it is done once. ARGV: milliseconds to keep (0: for ever); name, amount.
ADD = Script(
    FIRST
    + """
local new = not KEYS[2] or first(KEYS[2])
local sums = {}
for arg = 2, #ARGV, 2 do
  if new then
    sums[#sums + 1] = redis.call('HINCRBY', KEYS[1], ARGV[arg], ARGV[arg + 1])
  else
    sums[#sums + 1] = tonumber(redis.call('HGET', KEYS[1], ARGV[arg]) or 0)
  end
end
if new then
  if ARGV[1] == '0' then redis.call('PERSIST', KEYS[1])
  else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
end
return sums
"""
)

# KEYS: log, a mark if it is done once. ARGV: about how many to keep (0: all), the record.
APPEND = Script(
    FIRST
    + """
if KEYS[2] and not first(KEYS[2]) then return 0 end
if ARGV[1] == '0' then redis.call('XADD', KEYS[1], '*', 'r', ARGV[2])
else redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'r', ARGV[2]) end
return 1
"""
)

SCRIPTS = (HOLD, LIFT, HOLDS, PUT, DROP, PAGE, ADD, APPEND)
