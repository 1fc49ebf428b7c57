-- Sums in pieces. KEYS: sums. ARGV: the cursor of the piece (0: the first), about how many.
-- Returns the cursor of the next piece (0: there is none), and the amounts by name as a MessagePack
-- map, which clients read faster than thousands of replies; an empty text if there are none.

local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local flat, amounts = found[2], {}
for i = 1, #flat, 2 do
  amounts[flat[i]] = flat[i + 1]
end
return {found[1], #flat > 0 and cmsgpack.pack(amounts) or ''}
