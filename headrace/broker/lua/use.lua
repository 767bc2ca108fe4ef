-- use(app, requests a minute, tokens a minute, number, tokens) -> {reason, ms, requests left, tokens left}: use one
-- request of the rates (number 1) with its tokens, or give a request back that came to nothing (number -1).
--
-- ARGV  a rate without a limit is -1; the tokens are 0 for a job without an attempt of its own
-- Reply  the rate that the job met, '' if none; ms until that rate allows the job, 0 if both did, and it was counted; and
--        what is left of requests and of tokens, -1 of a rate without a limit.
local now, requests_cap, tokens_cap = now_ms(), tonumber(ARGV[2]), tonumber(ARGV[3])
local number, wanted = tonumber(ARGV[4]), tonumber(ARGV[5])
local bucket = PREFIX .. 'rate:' .. ARGV[1]
local requests = requests_cap >= 0 and filled(bucket, 'requests', requests_cap, now) or -1
local tokens = tokens_cap >= 0 and filled(bucket, 'tokens', tokens_cap, now) or -1
if requests_cap >= 0 and requests < number then
  local ms = math.ceil((1 - requests) * MINUTE_MS / requests_cap)
  return {'requests_per_minute', ms, math.floor(requests), math.floor(tokens)}
end
if tokens_cap >= 0 and tokens < wanted then
  local ms = math.ceil((wanted - tokens) * MINUTE_MS / tokens_cap)
  return {'tokens_per_minute', ms, math.floor(requests), math.floor(tokens)}
end

-- Both rates are as of `at`. A rate without a limit is not stored: a limit that is set later starts with a full bucket.
local function keep(name, left)
  if left >= 0 then
    redis.call('HSET', bucket, name, left)
  else
    redis.call('HDEL', bucket, name)
  end
end

requests = requests_cap >= 0 and math.min(requests_cap, requests - number) or -1
tokens = tokens_cap >= 0 and tokens - wanted or -1
keep('requests', requests)
keep('tokens', tokens)
redis.call('HSET', bucket, 'at', now)
redis.call('PEXPIRE', bucket, 2 * MINUTE_MS)
return {'', 0, math.floor(requests), math.floor(tokens)}
