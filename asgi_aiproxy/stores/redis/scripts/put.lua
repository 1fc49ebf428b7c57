-- Write rows of a table if others, or the same, are as expected.
--
-- KEYS: rows, order, version. ARGV: the number of expected rows; key, flag and value for each of
-- these, and for each row to write. Flag 0: no row, 1: this value. Returns the keys whose rows are
-- not as expected; nothing is written then.
--
-- include: changed

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
