-- Whether something is done for the first time within ONCE milliseconds; `key` is its mark.

local function first(key)
  return redis.call('SET', key, 1, 'NX', 'PX', ONCE) ~= false
end
