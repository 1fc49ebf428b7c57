-- Settle an admission: free slots, and correct counts and budgets to what was used.
--
-- ARGV: holder, whether the admission is sure (1) or assumed (0), when it was made; for each grant
--   count  window change               KEYS: parts of the window, mark
--   slot                               KEYS: holders
--   budget amount keep                 KEYS: budget, ends, mark
-- Returns whether anything was done, and what is spent of each budget.
--
-- include: clock first budget window

local holder, sure, at = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local key, arg = 0, 3
local done, spent, marks = 0, {}, {}

local function next_key() key = key + 1; return KEYS[key] end
local function next_number() arg = arg + 1; return tonumber(ARGV[arg]) end
local function unmarked(mark)
  if marks[mark] == nil then marks[mark] = first(mark) end
  return marks[mark]
end

local settle = {}

function settle.count()
  local pieces, mark, window, change = next_key(), next_key(), next_number(), next_number()
  if not sure or change == 0 or not unmarked(mark) then return end
  done = 1
  if change > 0 then return add(pieces, window, change) end
  local piece = math.floor(at / (window / PARTS))
  local there = redis.call('HGET', pieces, piece)
  if there then redis.call('HSET', pieces, piece, math.max(tonumber(there) + change, 0)) end
end

function settle.slot()
  if redis.call('ZREM', next_key(), holder) == 1 then done = 1 end
end

function settle.budget()
  local budget, ends, mark, amount, time =
    next_key(), next_key(), next_key(), next_number(), next_number()
  local c, r, x = 'c' .. holder, 'r' .. holder, 'x' .. holder
  local known = redis.call('HMGET', budget, c, r, x)
  local reserved = tonumber(known[1] or known[2])
  local unseen = not sure and unmarked(mark)
  if reserved then
    redis.call('HINCRBY', budget, 'h', 0 - reserved)
    redis.call('HINCRBY', budget, 's', amount)
  elseif known[3] then
    redis.call('HINCRBY', budget, 's', amount - tonumber(known[3]))
  elseif unseen then
    redis.call('HINCRBY', budget, 's', amount)
  end
  if reserved or known[3] then
    redis.call('HDEL', budget, c, r, x)
    redis.call('ZREM', ends, c, r, x)
  end
  if reserved or known[3] or unseen then
    done = 1
    keep(budget, ends, time)
  end
  spent[#spent + 1] = tonumber(redis.call('HGET', budget, 's') or 0)
end

while arg < #ARGV do
  arg = arg + 1
  settle[ARGV[arg]]()
end
return {done, unpack(spent)}
