-- End a hold. KEYS: holds, version. ARGV: name. Returns whether there was one.
--
-- include: clock changed

local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if tonumber(string.match(held, '^%S+')) <= now then return 0 end
changed(KEYS[2])
return 1
