-- restore(messages) -> number pushed: put back the messages that are not in the list. Safe to repeat.
--
-- KEYS  the queue's list of messages; its reservations
-- ARGV  job id, message; oldest first
-- Effect  each missing one is pushed to the end that workers take from, the oldest of them to be taken first.
--         The cap is not asked: this is work that was accepted before. Its reservation, if any, is done with.
local present = {}
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  present[message] = true
end
local pushed = 0
for i = #ARGV, 2, -2 do
  redis.call('ZREM', KEYS[2], ARGV[i - 1])
  if not present[ARGV[i]] then
    redis.call('RPUSH', KEYS[1], ARGV[i])
    present[ARGV[i]] = true
    pushed = pushed + 1
  end
end
return pushed
