-- How much of each grant is used now. Returns two numbers for each: used, and reserved.
--
-- ARGV: `count` window, `slot`, `budget`, or `clear` name.
--
-- include: clock budget window

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
