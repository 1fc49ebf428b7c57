-- All holds of an account. KEYS: holds. Returns name, milliseconds left and value for each.
--
-- include: clock

local found, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local ends, value = string.match(flat[i + 1], '^(%S+) (.*)$')
  local left = tonumber(ends) - now
  if left > 0 then
    found[#found + 1] = flat[i]
    found[#found + 1] = left
    found[#found + 1] = value
  else
    redis.call('HDEL', KEYS[1], flat[i])
  end
end
return found
