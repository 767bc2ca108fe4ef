-- The books of the queues, as every script here keeps them; this text comes before each of them.
--
-- KEYS[1]  the prefix of all keys. They carry one hash tag, so that one slot of a Redis Cluster has them all.
--
-- waiting            hash {job: "queue app tokens enqueue_no"}: all that wait, from the reservation to the claim
-- line:Q             zset {job: turn}: the jobs of queue Q; its size is the depth
-- reservations:Q     zset {job: expiry in ms}: those of them that are not committed yet
-- jobs:Q, tokens:Q   hashes {app: jobs}, {app: tokens}: what each app has waiting in Q
-- turns:Q            hash {app: the last turn it was given}, while it has work in Q
-- knocks:Q           zset {app: until, in ms}: apps that were refused for want of room and will be back by then
-- backlog:Q          tokens of all that wait in Q
-- app_jobs           hash {app: jobs waiting, in all queues}
-- Q                  Celery's list of messages, ordered by turn: the next one is taken from the right
--
-- Turns are start-time fair queueing with one job as the unit (Goyal, Vin, Cheng: SIGCOMM 1996): an app's next job
-- comes one turn after its last, and never before the turn that is being served.
local PREFIX = KEYS[1]

local function key(kind, queue)
  return PREFIX .. kind .. ':' .. queue
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Take a job out of the books; true when it was there. An entry with a later enqueue_no is another stay: it remains.
local function leave(job, enqueue_no)
  local entry = redis.call('HGET', PREFIX .. 'waiting', job)
  if not entry then
    return false
  end
  local queue, app, tokens, number = string.match(entry, '^(%S+) (%S+) (%d+) (%d+)$')
  if enqueue_no and tonumber(number) > tonumber(enqueue_no) then
    return false
  end
  redis.call('HDEL', PREFIX .. 'waiting', job)
  redis.call('ZREM', key('line', queue), job)
  redis.call('ZREM', key('reservations', queue), job)
  if redis.call('DECRBY', key('backlog', queue), tokens) <= 0 then
    redis.call('DEL', key('backlog', queue))
  end
  redis.call('HINCRBY', key('tokens', queue), app, -tokens)
  if redis.call('HINCRBY', key('jobs', queue), app, -1) <= 0 then
    redis.call('HDEL', key('jobs', queue), app)
    redis.call('HDEL', key('tokens', queue), app)
    redis.call('HDEL', key('turns', queue), app)
  end
  if redis.call('HINCRBY', PREFIX .. 'app_jobs', app, -1) <= 0 then
    redis.call('HDEL', PREFIX .. 'app_jobs', app)
  end
  return true
end

-- The turn of the message at a place in the list; 0 for one that stands for nothing any more, nil where there is none.
local function turn_at(queue, index)
  local message = redis.call('LINDEX', PREFIX .. queue, index)
  if not message then
    return nil
  end
  local job = string.match(message, '"delivery_tag":"job_(%x+)%.')
  return job and tonumber(redis.call('ZSCORE', key('line', queue), job) or 0) or 0
end

-- The turn that is being served: that of the message that is taken next. The earliest turn in the books says it only
-- while there is none: it may be that of a place whose process died, and newcomers would be let in at that turn.
local function turn_served(queue)
  local next_taken = turn_at(queue, -1)
  if next_taken and next_taken > 0 then
    return next_taken
  end
  local first = redis.call('ZRANGE', key('line', queue), 0, 0, 'WITHSCORES')
  return tonumber(first[2] or 1)
end

local function next_turn(queue, app)
  local last = tonumber(redis.call('HGET', key('turns', queue), app) or 0)
  return math.max(last + 1, turn_served(queue))
end

-- Enter a job that is in no queue.
local function enter(job, queue, app, tokens, enqueue_no, turn)
  local entry = table.concat({queue, app, tokens, enqueue_no}, ' ')
  redis.call('HSET', PREFIX .. 'waiting', job, entry)
  redis.call('ZADD', key('line', queue), turn, job)
  redis.call('INCRBY', key('backlog', queue), tokens)
  redis.call('HINCRBY', key('tokens', queue), app, tokens)
  redis.call('HINCRBY', key('jobs', queue), app, 1)
  redis.call('HINCRBY', PREFIX .. 'app_jobs', app, 1)
  local last = tonumber(redis.call('HGET', key('turns', queue), app) or 0)
  redis.call('HSET', key('turns', queue), app, math.max(last, turn))
end

-- Put a message into its list, behind those of its turn and before those of later ones.
local function push(queue, message, turn)
  local list = PREFIX .. queue
  -- Turns fall from left to right: look for the first place from the left that is not later than ours, mostly the first.
  local low, high = 0, redis.call('LLEN', list)
  if high > 0 and turn_at(queue, 0) <= turn then
    high = 0
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if turn_at(queue, middle) > turn then
      low = middle + 1
    else
      high = middle
    end
  end
  if low == 0 then
    redis.call('LPUSH', list, message)
  else
    redis.call('LINSERT', list, 'AFTER', redis.call('LINDEX', list, low - 1), message)
  end
end
