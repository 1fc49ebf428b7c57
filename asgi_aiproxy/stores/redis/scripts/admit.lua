-- Admit a holder: take all grants, and the first choice that can be taken whole, or nothing.
--
-- ARGV: holder, ttl; then the number of grants and the grants; the number of choices, and for each
-- choice the number of its grants and the grants. A grant is its kind and its numbers, with -1 where
-- there is no limit:
--   count   limit window amount        KEYS: parts of the window
--   slot    limit                      KEYS: holders
--   charge  cap amount keep            KEYS: budget, ends, mark of the settlement
--   release cap amount keep            KEYS: the same
--   clear   name                       KEYS: holds
-- Returns {1, choice, now, left...} or {0, number of the denied grant, left, wait}; a choice, left
-- or wait of -1 means none.
--
-- include: clock budget window

local holder, ttl = ARGV[1], tonumber(ARGV[2])
local key, arg = 0, 2
local number = -1

local function next_key() key = key + 1; return KEYS[key] end
local function next_arg() arg = arg + 1; return ARGV[arg] end
local function next_number() return tonumber(next_arg()) end

local check = {}

function check.count()
  local pieces, limit, window, amount = next_key(), next_number(), next_number(), next_number()
  local sum, parts = used(pieces, window)
  local short = limit >= 0 and sum + amount - limit or -1
  if short > 0 then
    local soonest = amount <= limit and wait(parts, window, short) or -1
    return nil, math.max(limit - sum, 0), soonest
  end
  return function() add(pieces, window, amount) end, limit >= 0 and -short or -1
end

function check.slot()
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

local function check_budget(kind)
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

function check.charge() return check_budget('c') end
function check.release() return check_budget('r') end

function check.clear()
  local held = redis.call('HGET', next_key(), next_arg())
  local until_ = held and tonumber(string.match(held, '^%S+')) or 0
  if until_ > now then return nil, 0, until_ - now end
  return false, -1
end

-- Check `count` grants: what each would leave, and how to take it. Returns the first that is denied,
-- with the longest wait of all that are.
local function check_all(count, left, takes)
  local lacking
  for _ = 1, count do
    number = number + 1
    local take, rest, soonest = check[next_arg()]()
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
local lacking = check_all(next_number(), left, takes)
if lacking then return {0, lacking[1], lacking[2], lacking[3]} end
local choices, choice = next_number(), -1
for this = 1, choices do
  local more_left, more_takes = {}, {}
  local short = check_all(next_number(), more_left, more_takes)
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
