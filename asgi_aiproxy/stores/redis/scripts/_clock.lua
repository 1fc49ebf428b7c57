-- The server's clock: `now` in milliseconds of Unix time.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
