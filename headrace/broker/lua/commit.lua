-- commit(messages) -> how many: turn reservations into messages in the queues. The depth stays the same.
--
-- ARGV  for each: job, queue, app, tokens, enqueue_no, message, pool; in the order in which they took their places. The
--       pool's workers look the job up in the semantic cache; empty for no look-up.
-- A job whose reservation expired still gets its message, because the job is in Postgres. A job in the books without a
-- reservation already has its message: this call is a repeat, or a restore came first. A job in a later stay was moved
-- to another queue since its insert: this message is stale.
-- Jobs that wait for their look-up in the semantic cache. More are not looked up.
local MOST_LOOKUPS = 10000

-- Let the pool's workers look a job up, if any has asked for jobs lately.
local function look_up(job, pool)
  local waiting = key('lookups', pool)
  if pool ~= '' and redis.call('EXISTS', key('looking', pool)) == 1 and redis.call('ZCARD', waiting) < MOST_LOOKUPS then
    redis.call('ZADD', waiting, now_ms(), job)
    redis.call('LPUSH', key('lookup_bell', pool), 1)
    redis.call('LTRIM', key('lookup_bell', pool), 0, 0)
  end
end

for i = 1, #ARGV, 7 do
  local job, queue, app, tokens, enqueue_no, message, pool = unpack(ARGV, i, i + 6)
  local turn = tonumber(redis.call('ZSCORE', key('line', queue), job))
  local is_over = not turn and is_in_later_stay(job, enqueue_no)
  local is_missing = redis.call('ZREM', key('reservations', queue), job) == 1 or not (turn or is_over)
  if not turn and not is_over then
    turn = next_turn(queue, app)
    enter(job, queue, app, tokens, enqueue_no, turn)
  end
  if is_missing then
    push(queue, message, turn)
    look_up(job, pool)
  end
end
save()
return #ARGV / 7
