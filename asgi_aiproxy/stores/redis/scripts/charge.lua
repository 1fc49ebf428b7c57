-- Add to what is spent of a budget, once. Returns what is spent.
--
-- KEYS: budget, ends, mark. ARGV: amount, keep.
--
-- include: clock first budget

if first(KEYS[3]) then
  redis.call('HINCRBY', KEYS[1], 's', ARGV[1])
  keep(KEYS[1], KEYS[2], tonumber(ARGV[2]))
end
return tonumber(redis.call('HGET', KEYS[1], 's') or 0)
