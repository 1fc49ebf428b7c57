-- Raise the version of a table, or of what is on hold. A version never occurs twice, even if the
-- server has lost all data: it is the time in microseconds, or one more than before.

local function changed(key)
  local time = redis.call('TIME')
  local version = time[1] * 1000000 + time[2]
  local before = tonumber(redis.call('GET', key) or 0)
  if version <= before then version = before + 1 end
  redis.call('SET', key, version)
end
