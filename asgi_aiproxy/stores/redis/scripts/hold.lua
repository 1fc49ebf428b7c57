-- Put a name on hold, unless it is for longer already. A hold is `end value`.
--
-- KEYS: holds, version. ARGV: name, milliseconds, value. Returns whether it was done.
--
-- include: clock changed

local ends = now + tonumber(ARGV[2])
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and tonumber(string.match(held, '^%S+')) >= ends then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', ends) .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < ends - now then redis.call('PEXPIREAT', KEYS[1], ends) end
changed(KEYS[2])
return 1
