"""Scripts that admit: what is asked for is given as a whole, or not at all."""

from __future__ import annotations

from asgi_aiproxy.stores.base import LATE, PARTS
from asgi_aiproxy.stores.redis.lua import CLOCK, FIRST, Script

# A budget is a hash and a sorted set. In the hash: s(pent), h(eld), and an amount for each
# reservation, under c<holder> if it is charged when it expires, r<holder> if it is released, and
# x<holder> after it has expired. The set says when each of them ends.
_BUDGET = f"""
local function sweep(budget, ends)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1000)) do
    local amount = tonumber(redis.call('HGET', budget, member) or 0)
    local kind = string.sub(member, 1, 1)
    redis.call('HDEL', budget, member)
    redis.call('ZREM', ends, member)
    if kind ~= 'x' then
      local charged = kind == 'c' and amount or 0
      local late = 'x' .. string.sub(member, 2)
      redis.call('HINCRBY', budget, 'h', 0 - amount)
      redis.call('HINCRBY', budget, 's', charged)
      redis.call('HSET', budget, late, charged)
      redis.call('ZADD', ends, now + {int(LATE * 1000)}, late)
    end
  end
end

local function keep(budget, ends, time)
  for _, key in ipairs({{budget, ends}}) do
    if time == 0 then redis.call('PERSIST', key)
    elseif redis.call('PTTL', key) < time then redis.call('PEXPIRE', key, time) end
  end
end
"""

_WINDOW = f"""
local function used(key, window)
  local oldest = math.floor(now / (window / {PARTS})) - {PARTS}
  local pieces, sum, flat = {{}}, 0, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local at = tonumber(flat[i])
    if at < oldest then
      redis.call('HDEL', key, flat[i])
    else
      local amount = tonumber(flat[i + 1])
      sum = sum + amount
      pieces[#pieces + 1] = {{at, amount}}
    end
  end
  return sum, pieces
end

local function wait(pieces, window, excess)
  table.sort(pieces, function(a, b) return a[1] < b[1] end)
  for _, piece in ipairs(pieces) do
    excess = excess - piece[2]
    if excess <= 0 then
      return math.max(math.ceil((piece[1] + {PARTS} + 1) * (window / {PARTS}) - now), 1)
    end
  end
  return -1
end

local function add(key, window, amount)
  redis.call('HINCRBY', key, math.floor(now / (window / {PARTS})), amount)
  redis.call('PEXPIRE', key, math.ceil(window + window / {PARTS}))
end
"""

# Grants follow each other in ARGV, each as its kind and its numbers, -1 where there is no limit:
#   count   limit window amount        KEYS: pieces
#   slot    limit                      KEYS: holders
#   charge  cap amount keep            KEYS: budget, ends, mark   (release: the same)
#   clear   name                       KEYS: holds
# Returned: {1, choice, now, left...} or {0, number of the grant, left, wait}; -1 is "none".
ADMIT = Script(
    CLOCK
    + _BUDGET
    + _WINDOW
    + """
local holder, ttl = ARGV[1], tonumber(ARGV[2])
local key, arg = 0, 2
local number = -1

local function next_key() key = key + 1; return KEYS[key] end
local function next_arg() arg = arg + 1; return ARGV[arg] end
local function next_number() return tonumber(next_arg()) end

local ask = {}

function ask.count()
  local pieces, limit, window, amount = next_key(), next_number(), next_number(), next_number()
  local sum, parts = used(pieces, window)
  local short = limit >= 0 and sum + amount - limit or -1
  if short > 0 then
    local soonest = amount <= limit and wait(parts, window, short) or -1
    return nil, math.max(limit - sum, 0), soonest
  end
  return function() add(pieces, window, amount) end, limit >= 0 and -short or -1
end

function ask.slot()
  local holders, limit = next_key(), next_number()
  redis.call('ZREMRANGEBYSCORE', holders, '-inf', now)
  local others = redis.call('ZCARD', holders)
  if redis.call('ZSCORE', holders, holder) then others = others - 1 end
  if limit >= 0 and others >= limit then return nil, 0, -1 end
  return function()
    redis.call('ZADD', holders, now + ttl, holder)
    local last = redis.call('ZREVRANGE', holders, 0, 0, 'WITHSCORES')
    redis.call('PEXPIREAT', holders, last[2])
  end, limit >= 0 and limit - others - 1 or -1
end

local function ask_budget(kind)
  local budget, ends, mark = next_key(), next_key(), next_key()
  local cap, amount, time = next_number(), next_number(), next_number()
  if redis.call('EXISTS', mark) == 1 then return nil, 0, -1 end
  sweep(budget, ends)
  local known = redis.call('HMGET', budget, 's', 'h', 'c' .. holder, 'r' .. holder)
  local before = tonumber(known[3] or known[4] or 0)
  local taken = tonumber(known[1] or 0) + tonumber(known[2] or 0) - before
  if cap >= 0 and taken + amount > cap then return nil, math.max(cap - taken, 0), -1 end
  return function()
    if known[3] then redis.call('HDEL', budget, 'c' .. holder) end
    if known[4] then redis.call('HDEL', budget, 'r' .. holder) end
    redis.call('ZREM', ends, 'c' .. holder, 'r' .. holder)
    redis.call('HINCRBY', budget, 'h', amount - before)
    redis.call('HSET', budget, kind .. holder, amount)
    redis.call('ZADD', ends, now + ttl, kind .. holder)
    keep(budget, ends, time > 0 and math.max(time, ttl) or 0)
  end, cap >= 0 and cap - taken - amount or -1
end

function ask.charge() return ask_budget('c') end
function ask.release() return ask_budget('r') end

function ask.clear()
  local held = redis.call('HGET', next_key(), next_arg())
  local until_ = held and tonumber(string.match(held, '^%S+')) or 0
  if until_ > now then return nil, 0, until_ - now end
  return false, -1
end

-- What each of so many grants would leave; or the first that is lacking, and the longest wait.
local function ask_all(count, left, takes)
  local lacking
  for _ = 1, count do
    number = number + 1
    local take, rest, soonest = ask[next_arg()]()
    if take == nil then
      if lacking then
        lacking[3] = math.max(lacking[3], soonest)
      else
        lacking = {number, rest, soonest}
      end
    else
      left[#left + 1] = rest
      if take then takes[#takes + 1] = take end
    end
  end
  return lacking
end

local left, takes = {}, {}
local lacking = ask_all(next_number(), left, takes)
if lacking then return {0, lacking[1], lacking[2], lacking[3]} end
local choices, choice = next_number(), -1
for this = 1, choices do
  local more_left, more_takes = {}, {}
  local short = ask_all(next_number(), more_left, more_takes)
  if not short then
    choice = this - 1
    for _, rest in ipairs(more_left) do left[#left + 1] = rest end
    for _, take in ipairs(more_takes) do takes[#takes + 1] = take end
    break
  elseif not lacking or lacking[3] < 0 or (short[3] >= 0 and short[3] < lacking[3]) then
    lacking = short
  end
end
if choices > 0 and choice < 0 then return {0, lacking[1], lacking[2], lacking[3]} end
for _, take in ipairs(takes) do take() end
return {1, choice, now, unpack(left)}
"""
)

# ARGV: holder, whether the admission is sure, when it was; then for each grant
#   count  window change               KEYS: pieces, mark
#   slot                               KEYS: holders
#   budget amount keep                 KEYS: budget, ends, mark
# Returned: whether anything was done, and each budget's spending.
SETTLE = Script(
    CLOCK
    + FIRST
    + _BUDGET
    + _WINDOW
    + """
local holder, sure, at = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local key, arg = 0, 3
local done, spent, marks = 0, {}, {}

local function next_key() key = key + 1; return KEYS[key] end
local function next_number() arg = arg + 1; return tonumber(ARGV[arg]) end
local function unmarked(mark)
  if marks[mark] == nil then marks[mark] = first(mark) end
  return marks[mark]
end

local settle = {}

function settle.count()
  local pieces, mark, window, change = next_key(), next_key(), next_number(), next_number()
  if not sure or change == 0 or not unmarked(mark) then return end
  done = 1
  if change > 0 then return add(pieces, window, change) end
  local piece = math.floor(at / (window / """
    + str(PARTS)
    + """))
  local there = redis.call('HGET', pieces, piece)
  if there then redis.call('HSET', pieces, piece, math.max(tonumber(there) + change, 0)) end
end

function settle.slot()
  if redis.call('ZREM', next_key(), holder) == 1 then done = 1 end
end

function settle.budget()
  local budget, ends, mark, amount, time =
    next_key(), next_key(), next_key(), next_number(), next_number()
  local c, r, x = 'c' .. holder, 'r' .. holder, 'x' .. holder
  local known = redis.call('HMGET', budget, c, r, x)
  local reserved = tonumber(known[1] or known[2])
  local unseen = not sure and unmarked(mark)
  if reserved then
    redis.call('HINCRBY', budget, 'h', 0 - reserved)
    redis.call('HINCRBY', budget, 's', amount)
  elseif known[3] then
    redis.call('HINCRBY', budget, 's', amount - tonumber(known[3]))
  elseif unseen then
    redis.call('HINCRBY', budget, 's', amount)
  end
  if reserved or known[3] then
    redis.call('HDEL', budget, c, r, x)
    redis.call('ZREM', ends, c, r, x)
  end
  if reserved or known[3] or unseen then
    done = 1
    keep(budget, ends, time)
  end
  spent[#spent + 1] = tonumber(redis.call('HGET', budget, 's') or 0)
end

while arg < #ARGV do
  arg = arg + 1
  settle[ARGV[arg]]()
end
return {done, unpack(spent)}
"""
)

# ARGV: holder, ttl; then `slot` (KEYS: holders) or `budget` (KEYS: budget, ends).
RENEW = Script(
    CLOCK
    + _BUDGET
    + """
local holder, ends_at = ARGV[1], now + tonumber(ARGV[2])
local key, kept = 0, 1
for arg = 3, #ARGV do
  local found = false
  if ARGV[arg] == 'slot' then
    key = key + 1
    local score = redis.call('ZSCORE', KEYS[key], holder)
    if score and tonumber(score) > now then
      found = true
      redis.call('ZADD', KEYS[key], 'XX', ends_at, holder)
      local last = redis.call('ZREVRANGE', KEYS[key], 0, 0, 'WITHSCORES')
      redis.call('PEXPIREAT', KEYS[key], last[2])
    end
  else
    local budget, ends = KEYS[key + 1], KEYS[key + 2]
    key = key + 2
    sweep(budget, ends)
    for _, member in ipairs({'c' .. holder, 'r' .. holder}) do
      if redis.call('ZSCORE', ends, member) then
        found = true
        redis.call('ZADD', ends, 'XX', ends_at, member)
        for _, name in ipairs({budget, ends}) do
          local left = redis.call('PTTL', name)
          if left >= 0 and now + left < ends_at then redis.call('PEXPIREAT', name, ends_at) end
        end
      end
    end
  end
  if not found then kept = 0 end
end
return kept
"""
)

CHARGE = Script(
    CLOCK
    + FIRST
    + _BUDGET
    + """
if first(KEYS[3]) then
  redis.call('HINCRBY', KEYS[1], 's', ARGV[1])
  keep(KEYS[1], KEYS[2], tonumber(ARGV[2]))
end
return tonumber(redis.call('HGET', KEYS[1], 's') or 0)
"""
)

# ARGV: `count` window, `slot`, `budget`, or `clear` name; returned are two numbers for each.
PEEK = Script(
    CLOCK
    + _BUDGET
    + _WINDOW
    + """
local key, arg, levels = 0, 0, {}
local function next_key() key = key + 1; return KEYS[key] end
local function next_arg() arg = arg + 1; return ARGV[arg] end
local peek = {}
function peek.count() return used(next_key(), tonumber(next_arg())), 0 end
function peek.slot()
  return redis.call('ZCOUNT', next_key(), string.format('(%.0f', now), '+inf'), 0
end
function peek.budget()
  local budget = next_key()
  sweep(budget, next_key())
  local known = redis.call('HMGET', budget, 's', 'h')
  return tonumber(known[1] or 0), tonumber(known[2] or 0)
end
function peek.clear()
  local held = redis.call('HGET', next_key(), next_arg())
  return held and tonumber(string.match(held, '^%S+')) > now and 1 or 0, 0
end
while arg < #ARGV do
  local used_now, held_now = peek[next_arg()]()
  levels[#levels + 1] = used_now
  levels[#levels + 1] = held_now
end
return levels
"""
)

SCRIPTS = (ADMIT, SETTLE, RENEW, CHARGE, PEEK)
