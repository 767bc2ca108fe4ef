-- restore(messages) -> the jobs whose messages were missing: put back what is not in the queue's list. Safe to repeat.
--
-- ARGV  the queue, then for each: job, app, tokens, enqueue_no, message; oldest first
-- The caps are not asked: this is work that was accepted before. What was taken once already, and came back, goes to
-- the front; what is only missing gets the turn of a newcomer. Its reservation, if any, is done with.
local queue = ARGV[1]
local present = {}
for _, message in ipairs(redis.call('LRANGE', PREFIX .. queue, 0, -1)) do
  present[message] = true
end
local pushed, returned = {}, {}
for i = 2, #ARGV, 5 do
  local job, app, tokens, enqueue_no, message = unpack(ARGV, i, i + 4)
  redis.call('ZREM', key('reservations', queue), job)
  local known = redis.call('HGET', PREFIX .. 'waiting', job)
  local is_missing = not present[message]
  local is_returned = tonumber(enqueue_no) > 1
  local is_known = known == table.concat({queue, app, tokens, enqueue_no}, ' ')
  -- It is in a later stay by now: whoever asks has looked before that.
  local is_over = known and not is_known and tonumber(string.match(known, '%d+$')) > tonumber(enqueue_no)
  if is_over then
    is_missing = false
  elseif is_missing and is_returned then
    leave(job)
    returned[#returned + 1] = i
  elseif not is_known then
    -- The entry of an earlier stay ends here.
    leave(job)
    enter(job, queue, app, tokens, enqueue_no, is_returned and turn_served(queue) or next_turn(queue, app))
  end
  if is_missing then
    present[message] = true
    pushed[#pushed + 1] = job
    if not is_returned then
      push(queue, message, tonumber(redis.call('ZSCORE', key('line', queue), job)))
    end
  end
end
-- The oldest of them is pushed last, to be taken first. Each has the turn of the one it goes before.
for i = #returned, 1, -1 do
  local job, app, tokens, enqueue_no, message = unpack(ARGV, returned[i], returned[i] + 4)
  enter(job, queue, app, tokens, enqueue_no, turn_served(queue))
  redis.call('RPUSH', PREFIX .. queue, message)
  ringing[pool_of(queue)] = true
  book(queue).turn_served = nil
end
save()
return pushed
