-- reserve(candidates) -> place: take a place in the first queue that has room. Atomic, so a cap is never overshot.
--
-- KEYS  for candidate i: KEYS[2i-1] its list of messages; KEYS[2i] its reservations, a zset {job id: expiry in ms}
-- ARGV  job id, seconds a reservation lives, then each candidate's depth cap
-- Effect  one ZADD into the chosen reservations; reservations that ran out are dropped on the way.
-- Reply  {i, depth}: the chosen candidate and its depth with this job in it, which is also the job's position;
--        {0, depth}: all are full; the depth is the first candidate's.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local first_depth
for i = 1, #KEYS / 2 do
  local list, reservations = KEYS[2 * i - 1], KEYS[2 * i]
  redis.call('ZREMRANGEBYSCORE', reservations, '-inf', now_ms)
  local depth = redis.call('LLEN', list) + redis.call('ZCARD', reservations)
  first_depth = first_depth or depth
  if depth < tonumber(ARGV[i + 2]) then
    redis.call('ZADD', reservations, now_ms + ARGV[2] * 1000, ARGV[1])
    return {i, depth + 1}
  end
end
return {0, first_depth}
