-- commit(messages) -> how many: turn reservations into messages in the queues. The depth stays the same.
--
-- ARGV  for each: job, queue, app, tokens, enqueue_no, message; in the order in which they took their places
-- A job whose reservation expired still gets its message, because the job is in Postgres. A job in the books without a
-- reservation already has its message: this call is a repeat, or a restore came first. A job in a later stay was moved
-- to another queue since its insert: this message is stale.
for i = 1, #ARGV, 6 do
  local job, queue, app, tokens, enqueue_no, message = unpack(ARGV, i, i + 5)
  local turn = tonumber(redis.call('ZSCORE', key('line', queue), job))
  local is_over = not turn and is_in_later_stay(job, enqueue_no)
  local is_missing = redis.call('ZREM', key('reservations', queue), job) == 1 or not (turn or is_over)
  if not turn and not is_over then
    turn = next_turn(queue, app)
    enter(job, queue, app, tokens, enqueue_no, turn)
  end
  if is_missing then
    push(queue, message, turn)
  end
end
save()
return #ARGV / 6
