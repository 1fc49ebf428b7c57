-- Add to sums. KEYS: sums, and a mark if it must be done only once.
--
-- ARGV: milliseconds to keep the sums (0: indefinitely); then name and amount of each. Returns the
-- new sums.
--
-- include: first

local new = not KEYS[2] or first(KEYS[2])
local sums = {}
for arg = 2, #ARGV, 2 do
  if new then
    sums[#sums + 1] = redis.call('HINCRBY', KEYS[1], ARGV[arg], ARGV[arg + 1])
  else
    sums[#sums + 1] = tonumber(redis.call('HGET', KEYS[1], ARGV[arg]) or 0)
  end
end
if new then
  if ARGV[1] == '0' then redis.call('PERSIST', KEYS[1])
  else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
end
return sums
