-- Renew slots and reservations of a holder. Returns 0 if one of them had expired.
--
-- ARGV: holder, ttl; then `slot` (KEYS: holders) or `budget` (KEYS: budget, ends) for each grant.
--
-- include: clock budget

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
