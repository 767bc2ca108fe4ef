-- restore(messages) -> the jobs whose messages were missing: put these back into the queue's list. Safe to repeat.
--
-- ARGV  the queue, the number of a job that was never taken, then for each: job, app, tokens, enqueue_no, message; oldest
--       first
-- The list is not searched: a committed job that is in the books under this number has its message in the list.
-- The caps do not apply, because these jobs were accepted before. A job that was taken before and came back goes to the
-- front. A job that is only missing keeps its turn, or gets that of a new job. A reservation, if any, ends.
local queue, first = ARGV[1], tonumber(ARGV[2])

local pushed, returned = {}, {}
for i = 3, #ARGV, 5 do
  local job, app, tokens, enqueue_no, message = unpack(ARGV, i, i + 4)
  local is_reserved = redis.call('ZREM', key('reservations', queue), job) == 1
  local known = redis.call('HGET', PREFIX .. 'waiting', job)
  local is_returned = tonumber(enqueue_no) > first
  local is_known = known == table.concat({queue, app, tokens, enqueue_no}, ' ')
  -- The job is in a later stay: the caller read Postgres before that began.
  local is_over = known and not is_known and tonumber(string.match(known, '%d+$')) > tonumber(enqueue_no)
  local is_missing = not is_over and (is_reserved or not is_known)
  if is_missing and is_returned then
    leave(job)
    returned[#returned + 1] = i
  elseif is_missing and not is_known then
    -- Under a new number it keeps its turn.
    local turn = known and tonumber(redis.call('ZSCORE', key('line', queue), job) or nil)
    leave(job)
    enter(job, queue, app, tokens, enqueue_no, turn or next_turn(queue, app))
  end
  if is_missing then
    pushed[#pushed + 1] = job
    if not is_returned then
      push(queue, message, tonumber(redis.call('ZSCORE', key('line', queue), job)))
    end
  end
end
-- The oldest is pushed last, so that it is taken first. Each gets the turn of the message that it goes before.
for i = #returned, 1, -1 do
  local job, app, tokens, enqueue_no, message = unpack(ARGV, returned[i], returned[i] + 4)
  enter(job, queue, app, tokens, enqueue_no, turn_served(queue))
  redis.call('RPUSH', PREFIX .. queue, message)
  ringing[pool_of(queue)] = true
  book(queue).turn_served = nil
end
save()
return pushed
