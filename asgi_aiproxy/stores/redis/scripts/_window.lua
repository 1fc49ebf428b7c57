-- A rate limit is a hash: the amount by the number of the part of time it was counted in. A window
-- consists of PARTS parts; one more is kept, so that no window ever contains more than the limit.

-- The amount within the last `window` milliseconds, and its parts.
local function used(key, window)
  local oldest = math.floor(now / (window / PARTS)) - PARTS
  local parts, sum, flat = {}, 0, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local at = tonumber(flat[i])
    if at < oldest then
      redis.call('HDEL', key, flat[i])
    else
      local amount = tonumber(flat[i + 1])
      sum = sum + amount
      parts[#parts + 1] = {at, amount}
    end
  end
  return sum, parts
end

-- Milliseconds until `excess` of the amount has left the window; -1: never.
local function wait(parts, window, excess)
  table.sort(parts, function(a, b) return a[1] < b[1] end)
  for _, part in ipairs(parts) do
    excess = excess - part[2]
    if excess <= 0 then
      return math.max(math.ceil((part[1] + PARTS + 1) * (window / PARTS) - now), 1)
    end
  end
  return -1
end

-- Count an amount now.
local function add(key, window, amount)
  redis.call('HINCRBY', key, math.floor(now / (window / PARTS)), amount)
  redis.call('PEXPIRE', key, math.ceil(window + window / PARTS))
end
