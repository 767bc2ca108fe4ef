-- look_up(pool, most, ms to open, ms to look up) -> jobs: the next jobs to be looked up, at most `most`.
--
-- The newest first: it waits longest for a worker of its own pool. Where look-ups lag, the oldest have been claimed, and
-- to look them up first would leave none that an answer can still serve.
-- A job that is not done within its time is due again, for another worker.
local pool, now = ARGV[1], now_ms()
local waiting = key('lookups', pool)
redis.call('SET', key('looking', pool), 1, 'PX', ARGV[3])
local jobs = redis.call('ZREVRANGEBYSCORE', waiting, now, '-inf', 'LIMIT', 0, ARGV[2])
for _, job in ipairs(jobs) do
  redis.call('ZADD', waiting, now + ARGV[4], job)
end
redis.call('DEL', key('lookup_bell', pool))
return jobs
