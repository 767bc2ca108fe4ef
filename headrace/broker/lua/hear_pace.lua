-- hear(rates): record the rates that an answer reported. A report older than the last recorded one is ignored.
--
-- KEYS  as in `ask_pace.lua`
-- ARGV  age of the report in ms, ms for which no call may be made, seconds the keys live, ms that a call may be on its
--       way to the provider, then for each reported rate: its kind, limit, what is left, ms until it is full
-- The report may not include calls made since, or calls that were on their way: these are subtracted.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said_at = now - tonumber(ARGV[1])
if tonumber(ARGV[2]) > 0 then
  local held_until = tonumber(redis.call('HGET', KEYS[1], 'held_until') or 0)
  redis.call('HSET', KEYS[1], 'held_until', math.max(held_until, said_at + ARGV[2]))
end
if #ARGV > 4 and said_at > tonumber(redis.call('HGET', KEYS[1], 'said_at') or 0) then
  redis.call('HSET', KEYS[1], 'said_at', said_at)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', said_at - ARGV[4])
  local asked = {requests = 0, tokens = 0}
  for _, call in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    asked.requests = asked.requests + 1
    asked.tokens = asked.tokens + tonumber(string.match(call, ' (%d+)$'))
  end
  for i = 5, #ARGV, 4 do
    local kind, limit, left, full_in = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    -- A full bucket does not show how fast it fills: assume one minute, as is usual.
    local per_ms = (left < limit and full_in > 0) and (limit - left) / full_in or limit / 60000
    left = math.min(limit, left + per_ms * (now - said_at)) - asked[kind]
    redis.call('HSET', KEYS[1], kind .. ':limit', limit, kind .. ':left', left, kind .. ':per_ms', per_ms, kind .. ':at', now)
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
