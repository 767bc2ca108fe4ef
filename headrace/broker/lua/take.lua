-- take(depth, farthest, number, message, stay, ...) -> for each message 1, or 0 if it was gone; for each queue its next
-- messages, the first one last.
--
-- KEYS  the queues' lists, then for each list its `taken` (see `books.lua`)
-- ARGV  how many next messages of each queue to return, how far from the list's end to search for a message, and for
--       each message to remove: the number of its list, the message, and "job enqueue_no", empty for a stale message
local depth, farthest = tonumber(ARGV[1]), ARGV[2]
local queues = #KEYS / 2
local removed, ahead = {}, {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV, 3 do
  local number, message, stay = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local list = KEYS[number]
  -- LREM alone would search the whole list for a message that another worker has taken.
  local is_there = redis.call('LPOS', list, message, 'RANK', -1, 'MAXLEN', farthest)
  removed[#removed + 1] = is_there and redis.call('LREM', list, -1, message) or 0
  if is_there and stay ~= '' then
    -- Kept until the job's claim, so that `publish_due` knows that no list has its message.
    redis.call('ZADD', KEYS[queues + number], now, stay)
  end
end
for i = 1, queues do
  ahead[i] = depth > 0 and redis.call('LRANGE', KEYS[i], -depth, -1) or {}
end
return {removed, ahead}
