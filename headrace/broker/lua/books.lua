-- The books of the queues. Python puts this text in front of each script that uses them.
--
-- KEYS[1]  the prefix of all keys. It has a hash tag, so that all keys are in one slot of a Redis Cluster.
--
-- waiting            hash {job: "queue app tokens enqueue_no"}: all waiting jobs, from the reservation to the claim
-- line:Q             zset {job: turn}: the jobs of queue Q; its size is the depth
-- reservations:Q     zset {job: expiry in ms}: the jobs of Q that are reserved but not committed
-- jobs:Q             hash {app: jobs waiting in Q}
-- tokens:Q           hash {app: tokens of its jobs waiting in Q}, while it has jobs in Q. A process of an older version
--                    does not update it: a field may be wrong or missing until its app has no jobs in Q.
-- turns:Q            hash {app: the last turn it was given}, while it has jobs in Q
-- knocks:Q           zset {app: until, in ms}: apps that found no room, and will retry before this time
-- wishes:Q           hash {app: tokens of its refused job}, of the apps in knocks:Q
-- backlog:Q          the most tokens that the jobs in Q can use: prompts plus max_tokens
-- expected:Q         the tokens that they will likely use: prompts plus answers of the lane's usual length
-- expected_tokens    hash {job: tokens that it will likely use}, only of jobs for which this is below the maximum
-- app_jobs           hash {app: jobs waiting, in all queues}
-- taken:Q            zset {"job enqueue_no": taken at, in ms}: jobs that a worker took out of the list and has not
--                    claimed yet
-- checked:Q          "queued_at job": since Redis was empty, every job queued up to this one was found in the books
-- departed           hash {pool: jobs that ever left its queues}. The number of free slots at one count gives the
--                    number of free slots at a later count.
-- rate:A             hash {requests, tokens, at}: what app A has left of its rates, as of `at` in ms
-- Q                  Celery's list of messages, ordered by turn; workers take from the right
-- bell:P             stream with one entry; a new entry means that the lists of pool P have new messages
-- lookups:P          zset {job: due, in ms}: jobs that workers of pool P have still to look up in the semantic cache; due
--                    later while one does
-- looking:P          exists while workers of P look jobs up
-- lookup_bell:P      list with one entry: lookups:P has new jobs
--
-- Turns are start-time fair queueing with one job as the unit (Goyal, Vin, Cheng: SIGCOMM 1996): an app's next job
-- comes one turn after its last job, and never before the turn being served.
local PREFIX = KEYS[1]

-- A Redis with full memory refuses a script whose first write needs memory, but lets a script continue that has already
-- written. This first write needs none, so the books are kept even then; the caps bound their size.
redis.call('DEL', PREFIX .. 'none')

local function key(kind, queue)
  return PREFIX .. kind .. ':' .. queue
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The token bucket of an app's rate has the capacity of one minute.
local MINUTE_MS = 60000

local function filled(bucket, name, limit, now)
  local left, at = redis.call('HGET', bucket, name), redis.call('HGET', bucket, 'at')
  if not left then
    return limit
  end
  return math.min(limit, left + math.max(0, now - at) * limit / MINUTE_MS)
end

-- The books that this script has read and changed. A script runs alone, so they cannot change meanwhile. Each script
-- must end with `save`.
local books, jobs_of_apps = {}, {}

local function book(queue)
  local own = books[queue]
  if not own then
    own = {
      depth = redis.call('ZCARD', key('line', queue)),
      backlog = tonumber(redis.call('GET', key('backlog', queue)) or 0),
      apps = redis.call('HLEN', key('jobs', queue)),
      accounts = {},
    }
    -- A process of an older version does not update `expected`: it may be wrong until the queue is empty. The minimum
    -- keeps a stale value from exceeding the backlog.
    own.expected = math.min(own.backlog, tonumber(redis.call('GET', key('expected', queue)) or own.backlog))
    books[queue] = own
  end
  return own
end

-- The jobs, turn and tokens of one app in one queue.
local function account(queue, app)
  local accounts = book(queue).accounts
  local own = accounts[app]
  if not own then
    own = {
      jobs = tonumber(redis.call('HGET', key('jobs', queue), app) or 0),
      turn = tonumber(redis.call('HGET', key('turns', queue), app) or 0),
      tokens = 0,
    }
    if own.jobs > 0 then
      own.tokens = tonumber(redis.call('HGET', key('tokens', queue), app) or 0)
    end
    accounts[app] = own
  end
  return own
end

local function jobs_of_app(app)
  if not jobs_of_apps[app] then
    jobs_of_apps[app] = tonumber(redis.call('HGET', PREFIX .. 'app_jobs', app) or 0)
  end
  return jobs_of_apps[app]
end

-- Count a job that arrives (1) or leaves (-1), and its tokens.
local function count(queue, app, jobs, tokens, expected)
  local whole, own = book(queue), account(queue, app)
  local had_work = own.jobs > 0
  own.jobs, own.is_changed = own.jobs + jobs, true
  own.tokens = own.jobs > 0 and math.max(0, own.tokens + tokens) or 0
  if had_work ~= (own.jobs > 0) then
    whole.apps = whole.apps + jobs
  end
  whole.depth, whole.backlog, whole.is_changed = whole.depth + jobs, whole.backlog + tokens, true
  whole.expected = math.min(whole.backlog, math.max(0, whole.expected + expected))
  jobs_of_apps[app] = jobs_of_app(app) + jobs
end

-- `chat.high` is a queue of the pool `chat`.
local function pool_of(queue)
  return string.match(queue, '^(.*)%.') or queue
end

local departed_before, departing = {}, {}

local function departed(pool)
  departed_before[pool] = departed_before[pool] or tonumber(redis.call('HGET', PREFIX .. 'departed', pool) or 0)
  return departed_before[pool] + (departing[pool] or 0)
end

local function save_account(queue, app, own)
  if own.jobs > 0 then
    redis.call('HSET', key('jobs', queue), app, own.jobs)
    redis.call('HSET', key('turns', queue), app, own.turn)
    redis.call('HSET', key('tokens', queue), app, own.tokens)
  else
    redis.call('HDEL', key('jobs', queue), app)
    redis.call('HDEL', key('tokens', queue), app)
    redis.call('HDEL', key('turns', queue), app)
  end
  if jobs_of_apps[app] > 0 then
    redis.call('HSET', PREFIX .. 'app_jobs', app, jobs_of_apps[app])
  else
    redis.call('HDEL', PREFIX .. 'app_jobs', app)
  end
end

-- Pools whose lists get messages from this script.
local ringing = {}

local function save()
  for pool, jobs in pairs(departing) do
    redis.call('HINCRBY', PREFIX .. 'departed', pool, jobs)
  end
  for pool in pairs(ringing) do
    redis.call('XADD', key('bell', pool), 'MAXLEN', 1, '*', 'queues', 'new')
  end
  for queue, own in pairs(books) do
    if own.is_changed then
      if own.backlog > 0 then
        redis.call('SET', key('backlog', queue), own.backlog)
        redis.call('SET', key('expected', queue), own.expected)
      else
        redis.call('DEL', key('backlog', queue), key('expected', queue))
      end
      for app, of_app in pairs(own.accounts) do
        if of_app.is_changed then
          save_account(queue, app, of_app)
        end
      end
    end
  end
end

-- Remove a job from the books; true if it was there. An entry with a later enqueue_no is a later stay, and remains.
local function leave(job, enqueue_no)
  local entry = redis.call('HGET', PREFIX .. 'waiting', job)
  if not entry then
    return false
  end
  local queue, app, tokens, number = string.match(entry, '^(%S+) (%S+) (%d+) (%d+)$')
  if enqueue_no and tonumber(number) > tonumber(enqueue_no) then
    return false
  end
  count(queue, app, -1, -tokens, -(redis.call('HGET', PREFIX .. 'expected_tokens', job) or tokens))
  redis.call('HDEL', PREFIX .. 'expected_tokens', job)
  redis.call('HDEL', PREFIX .. 'waiting', job)
  redis.call('ZREM', key('line', queue), job)
  redis.call('ZREM', key('reservations', queue), job)
  redis.call('ZREM', key('taken', queue), job .. ' ' .. number)
  local own = account(queue, app)
  own.turn = own.jobs > 0 and own.turn or 0
  book(queue).turn_served = nil
  departing[pool_of(queue)] = (departing[pool_of(queue)] or 0) + 1
  return true
end

-- Whether a job in the books has no message yet. `entry` is the job's in `waiting`.
local function is_reserved(job, entry)
  return redis.call('ZSCORE', key('reservations', string.match(entry, '^%S+')), job)
end

-- The turn of the message at an index of the list; 0 for a stale message, nil without a message.
local function turn_at(queue, index)
  local message = redis.call('LINDEX', PREFIX .. queue, index)
  if not message then
    return nil
  end
  -- A plain search first: a pattern would be tried at every character.
  local _, tag = string.find(message, '"delivery_tag":"job_', 1, true)
  local job = tag and string.match(message, '^%x+', tag + 1)
  return job and tonumber(redis.call('ZSCORE', key('line', queue), job) or 0) or 0
end

-- The turn being served: that of the next message. Without one, or if it is stale, the earliest turn in the books. That
-- is only the fallback, since it may belong to the reservation of a dead process: new jobs would enter at that turn.
local function turn_served(queue)
  local own = book(queue)
  if not own.turn_served then
    own.turn_served = turn_at(queue, -1) or 0
    if own.turn_served == 0 then
      local first = redis.call('ZRANGE', key('line', queue), 0, 0, 'WITHSCORES')
      own.turn_served = tonumber(first[2] or 1)
    end
  end
  return own.turn_served
end

local function next_turn(queue, app)
  return math.max(account(queue, app).turn + 1, turn_served(queue))
end

-- Whether a job waits under an enqueue_no later than this one.
local function is_in_later_stay(job, enqueue_no)
  local entry = redis.call('HGET', PREFIX .. 'waiting', job)
  return entry and tonumber(string.match(entry, '%d+$')) > tonumber(enqueue_no)
end

-- Enter a job that is in no queue. `expected` defaults to `tokens`.
local function enter(job, queue, app, tokens, enqueue_no, turn, expected)
  expected = math.min(expected or tokens, tokens)
  local entry = table.concat({queue, app, tokens, enqueue_no}, ' ')
  redis.call('HSET', PREFIX .. 'waiting', job, entry)
  redis.call('ZADD', key('line', queue), turn, job)
  if expected < tonumber(tokens) then
    redis.call('HSET', PREFIX .. 'expected_tokens', job, expected)
  else
    -- A process of an older version leaves the value of the job's last stay.
    redis.call('HDEL', PREFIX .. 'expected_tokens', job)
  end
  count(queue, app, 1, tonumber(tokens), expected)
  local own = account(queue, app)
  own.turn = math.max(own.turn, turn)
end

-- How far from the ends of a list a message is searched for: a search of a long list would block all other clients.
local SEARCHED = 1000

-- How many entries at the right end of a list have turns up to this one; the leftmost entry has a later turn.
-- The books know it up to a few reservations and stale messages, so the search starts there and seldom goes far.
local function count_up_to(queue, turn, length)
  local before, beyond, step = 0, length, 1
  local guess = math.min(redis.call('ZCOUNT', key('line', queue), '-inf', turn), length - 1)
  while guess > before and guess < beyond do
    if turn_at(queue, -guess) <= turn then
      before, guess = guess, guess + step
    else
      beyond, guess = guess, guess - step
    end
    step = 2 * step
  end
  while beyond - before > 1 do
    local middle = math.floor((before + beyond) / 2)
    if turn_at(queue, -middle) <= turn then
      before = middle
    else
      beyond = middle
    end
  end
  return before
end

-- Insert a message into its list: after those with its turn, and before those with later turns.
local function push(queue, message, turn)
  local list, own = PREFIX .. queue, book(queue)
  ringing[pool_of(queue)] = true
  own.last_turn = own.last_turn or turn_at(queue, 0) or 0
  own.turn_served = nil
  -- Turns fall from left to right. Most messages go to the left end.
  if own.last_turn <= turn then
    own.last_turn = turn
    redis.call('LPUSH', list, message)
    return
  end
  local length = redis.call('LLEN', list)
  local before = count_up_to(queue, turn, length)
  -- LINSERT walks over the entries on the left. Popping the entries on the right and pushing them back costs about
  -- thirty times as much per entry.
  if before > SEARCHED or 30 * before > length then
    redis.call('LINSERT', list, 'AFTER', redis.call('LINDEX', list, -before - 1), message)
    return
  end
  local first = before > 0 and redis.call('RPOP', list, before) or {}
  local again = {message}
  for i = #first, 1, -1 do
    again[#again + 1] = first[i]
  end
  redis.call('RPUSH', list, unpack(again))
end

-- Remove a message that is near an end of its list; true if it was there.
local function pluck(queue, message)
  local list = PREFIX .. queue
  for _, rank in ipairs({-1, 1}) do
    if redis.call('LPOS', list, message, 'RANK', rank, 'MAXLEN', SEARCHED) then
      return redis.call('LREM', list, rank, message) == 1
    end
  end
  return false
end
