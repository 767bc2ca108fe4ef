-- use(app, requests a minute, tokens a minute or -1, number) -> {ms, requests left, tokens left}: use one request of the
-- rate (number 1), or give one back that came to nothing (number -1).
--
-- Reply  ms until the app's rate allows one more request: 0 if it did, and one was used up; and what is left of requests
--        and of tokens, -1 of a rate without a limit.
local now, requests_cap, tokens_cap, number = now_ms(), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bucket = PREFIX .. 'rate:' .. ARGV[1]
local requests = filled(bucket, 'requests', requests_cap, now)
local tokens = tokens_cap >= 0 and filled(bucket, 'tokens', tokens_cap, now) or -1
if requests < number then
  return {math.ceil((1 - requests) * MINUTE_MS / requests_cap), math.floor(requests), math.floor(tokens)}
end
requests = math.min(requests_cap, requests - number)
redis.call('HSET', bucket, 'requests', requests, 'at', now)
-- Both rates are as of `at`. A rate without a limit is not stored: a limit that is set later starts with a full bucket.
if tokens >= 0 then
  redis.call('HSET', bucket, 'tokens', tokens)
else
  redis.call('HDEL', bucket, 'tokens')
end
redis.call('PEXPIRE', bucket, 2 * MINUTE_MS)
return {0, math.floor(requests), math.floor(tokens)}
