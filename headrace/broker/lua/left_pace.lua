-- left() -> what calls may use now: {requests, tokens, capacity in tokens}; nil for a rate that was never reported.
--
-- KEYS  as in `ask_pace.lua`; the arithmetic is the same, but nothing is counted
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if tonumber(redis.call('HGET', KEYS[1], 'held_until') or 0) > now then
  return {0, 0, 0}
end
local found = {}
for i, kind in ipairs({'requests', 'tokens'}) do
  local rate = redis.call('HMGET', KEYS[1], kind .. ':limit', kind .. ':left', kind .. ':per_ms', kind .. ':at')
  local limit = tonumber(rate[1])
  found[i] = limit and math.floor(math.min(limit, rate[2] + rate[3] * (now - rate[4])))
  found[3] = limit
end
return {found[1] or false, found[2] or false, found[2] and found[3] or false}
