-- take(depth, farthest, lone, number, message, stay, ...) -> for each message 1, or 0 if it was gone; for each queue its
-- next messages, the first one last; 1 if the only message of all queues was removed, which is among these.
--
-- KEYS  the queues' lists, then for each list its `taken` (see `books.lua`)
-- ARGV  how many next messages of each queue to return, how far from the list's end to search for a message, 1 to remove
--       the only message of all queues, and for each message to remove: the number of its list, the message, and
--       "job enqueue_no", empty for a stale message
local depth, farthest, lone = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local queues = #KEYS / 2
local removed, ahead = {}, {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 4, #ARGV, 3 do
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

-- The "job enqueue_no" of a message; nil for one that is not Headrace's, or not readable.
local function stay_of(message)
  local is_json, decoded = pcall(cjson.decode, message)
  if not is_json or type(decoded) ~= 'table' or type(decoded.headers) ~= 'table' or not decoded.headers.headrace then
    return nil
  end
  local job = string.match(decoded.headers.id, '^job_(%x+)$')
  local enqueue_no = string.match(decoded.properties.delivery_tag, '%.(%d+)$')
  return job and enqueue_no and (job .. ' ' .. enqueue_no)
end

local waiting, where = 0, nil
for i = 1, lone and queues or 0 do
  local length = redis.call('LLEN', KEYS[i])
  waiting, where = waiting + length, length > 0 and i or where
end
if waiting == 1 and #ahead[where] == 1 then
  local is_read, stay = pcall(stay_of, ahead[where][1])
  if is_read and stay then
    redis.call('RPOP', KEYS[where])
    redis.call('ZADD', KEYS[queues + where], now, stay)
    return {removed, ahead, 1}
  end
end
return {removed, ahead, 0}
