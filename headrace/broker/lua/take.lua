-- take(depth, farthest, number, message, stay, ...) -> for each message 1, or 0 where it was gone; for each queue what is
-- next in it, the first one last.
--
-- KEYS  the queues' lists, then for each its `taken` of `books.lua`
-- ARGV  how many messages of each to see, how far from its end a message is looked for, and for each that is to be
--       removed the number of its list, itself, and "job enqueue_no"; nothing where it stands for no job
local depth, farthest = tonumber(ARGV[1]), ARGV[2]
local queues = #KEYS / 2
local removed, ahead = {}, {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV, 3 do
  local number, message, stay = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local list = KEYS[number]
  -- Alone, LREM would search the whole list for what another worker has taken.
  local is_there = redis.call('LPOS', list, message, 'RANK', -1, 'MAXLEN', farthest)
  removed[#removed + 1] = is_there and redis.call('LREM', list, -1, message) or 0
  if is_there and stay ~= '' then
    -- Until its claim, or `publish_due` would not know that no list has it any more.
    redis.call('ZADD', KEYS[queues + number], now, stay)
  end
end
for i = 1, queues do
  ahead[i] = depth > 0 and redis.call('LRANGE', KEYS[i], -depth, -1) or {}
end
return {removed, ahead}
