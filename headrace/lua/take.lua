-- take(depth, farthest, number, message, ...) -> for each message 1, or 0 where it was gone; for each queue what is next
-- in it, the first one last.
--
-- KEYS  the queues' lists
-- ARGV  how many messages of each to see, how far from its end a message is looked for, and for each that is to be
--       removed the number of its list and itself
local depth, farthest = tonumber(ARGV[1]), ARGV[2]
local removed, ahead = {}, {}
for i = 3, #ARGV, 2 do
  local list, message = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  -- Alone, LREM would search the whole list for what another worker has taken.
  local is_there = redis.call('LPOS', list, message, 'RANK', -1, 'MAXLEN', farthest)
  removed[#removed + 1] = is_there and redis.call('LREM', list, -1, message) or 0
end
for i, list in ipairs(KEYS) do
  ahead[i] = depth > 0 and redis.call('LRANGE', list, -depth, -1) or {}
end
return {removed, ahead}
