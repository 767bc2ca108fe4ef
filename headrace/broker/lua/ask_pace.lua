-- ask(call) -> milliseconds to wait; 0 if the call may be made, which is then counted.
--
-- KEYS[1]  hash of a model's rates: `held_until`, and for `requests` and `tokens` each `:limit`, `:left`, `:per_ms`
--          (how fast it fills) and `:at` (the time of `left`); times in ms. A rate never reported has no fields.
-- KEYS[2]  zset {"call tokens": asked at, in ms}: calls that no reported rate includes yet
-- ARGV     call, its tokens, seconds that the calls are kept
-- The buckets model the provider's: its last report, minus the calls made since, plus what has filled up since.
local call, tokens, lives_s = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local held_until = tonumber(redis.call('HGET', KEYS[1], 'held_until') or 0)
if held_until > now then
  return held_until - now
end
local wait, filled = 0, {}
for kind, wanted in pairs({requests = 1, tokens = tokens}) do
  local rate = redis.call('HMGET', KEYS[1], kind .. ':limit', kind .. ':left', kind .. ':per_ms', kind .. ':at')
  if rate[1] then
    local limit, per_ms = tonumber(rate[1]), tonumber(rate[3])
    local left = math.min(limit, rate[2] + per_ms * (now - rate[4]))
    -- A call larger than the bucket goes when the bucket is full.
    local needed = math.min(wanted, limit)
    if left < needed then
      wait = math.max(wait, math.ceil((needed - left) / per_ms))
    end
    filled[kind] = left - wanted
  end
end
if wait > 0 or next(filled) == nil then
  return wait
end
for kind, left in pairs(filled) do
  redis.call('HSET', KEYS[1], kind .. ':left', left, kind .. ':at', now)
end
redis.call('ZADD', KEYS[2], now, call .. ' ' .. tokens)
redis.call('EXPIRE', KEYS[2], lives_s)
return 0
