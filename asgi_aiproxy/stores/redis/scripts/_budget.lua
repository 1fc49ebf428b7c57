-- A budget is a hash and a sorted set.
--   hash: s (spent), h (held: reserved), and an amount for each reservation, under
--         c<holder> if it is charged when it expires,
--         r<holder> if it is released when it expires,
--         x<holder> after it has expired (what was charged, until a late settlement)
--   set:  the same members, by the time at which they end

-- End the reservations that have expired, and forget late settlements after LATE milliseconds.
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
      redis.call('ZADD', ends, now + LATE, late)
    end
  end
end

-- Keep a budget for `time` milliseconds after this use; 0: indefinitely.
local function keep(budget, ends, time)
  for _, key in ipairs({budget, ends}) do
    if time == 0 then redis.call('PERSIST', key)
    elseif redis.call('PTTL', key) < time then redis.call('PEXPIRE', key, time) end
  end
end
