-- Remove a row. KEYS: rows, order, version. ARGV: key. Returns whether there was one.
--
-- include: changed

if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
changed(KEYS[3])
return 1
