-- Rows in the order of their keys. KEYS: rows, order. ARGV: the key to begin after (empty: at the
-- first), how many. Returns key and value for each.

local after = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local found = {}
for _, key in ipairs(
  redis.call('ZRANGEBYLEX', KEYS[2], after, '+', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', KEYS[1], key)
end
return found
