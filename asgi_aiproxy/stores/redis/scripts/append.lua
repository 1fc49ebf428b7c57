-- Append a record to a log. KEYS: log, and a mark if it must be done only once.
--
-- ARGV: about how many records to keep (0: all), the record.
--
-- include: first

if KEYS[2] and not first(KEYS[2]) then return 0 end
if ARGV[1] == '0' then redis.call('XADD', KEYS[1], '*', 'r', ARGV[2])
else redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'r', ARGV[2]) end
return 1
