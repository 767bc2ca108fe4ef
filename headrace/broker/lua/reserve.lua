-- reserve(asks) -> places or refusals: reserve a place for each ask in its first queue with room, or say why none has.
-- Atomic, so that concurrent calls never exceed a cap.
--
-- ARGV  seconds a reservation lives, then for each ask:
--         job, app, tokens, expected tokens, the app's caps (jobs waiting, requests and tokens a minute; -1 for none),
--         number of candidates, and for each: queue, cap in jobs, cap in tokens, most expected tokens ahead (-1: any),
--         and the pool's count of departed jobs at which all of its free slots are taken
-- Reply  for each ask {candidate or 0, reason, number, depth, tokens, expected tokens, requests left, tokens left, free
--         slots}. A place: `number` is its position, `expected tokens` are those of the jobs ahead. A refusal: `number`
--         is the cap in jobs or tokens, or the ms until the rate allows the job; depth, tokens and expected tokens are
--         the first candidate's. A rate without a limit has -1 left.
-- Effect  each place is in the books with a reservation. Only admitted jobs use up rates.
local now = now_ms()
local ttl_ms = ARGV[1] * 1000

local function keep(bucket, name, left)
  if left >= 0 then
    redis.call('HSET', bucket, name, left)
  else
    redis.call('HDEL', bucket, name)
  end
end

local dropped = {}

-- Once for each queue.
local function drop_stale(queue)
  if dropped[queue] then
    return
  end
  dropped[queue] = true
  local reservations = key('reservations', queue)
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', reservations, '-inf', now, 'LIMIT', 0, 100)) do
    if not leave(job) then
      redis.call('ZREM', reservations, job)
    end
  end
end

-- By queue: the apps that knock there (refused lately, and expected back). To read them all takes a microsecond for
-- two of them, so they are read only where they decide.
local knocks = {}

-- By queue: whether any app knocks there. Mostly none does, and then a place that is taken has no knock to forget.
local is_knocked_at = {}

local function forget_knock(queue, app)
  if is_knocked_at[queue] == nil then
    is_knocked_at[queue] = redis.call('EXISTS', key('knocks', queue)) == 1
  end
  if not is_knocked_at[queue] then
    return
  end
  redis.call('ZREM', key('knocks', queue), app)
  redis.call('HDEL', key('wishes', queue), app)
end

local function knocking(queue)
  if not knocks[queue] then
    knocks[queue] = {}
    local found = redis.call('ZRANGE', key('knocks', queue), 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
      if tonumber(found[i + 1]) > now then
        knocks[queue][found[i]] = true
      else
        forget_knock(queue, found[i])
      end
    end
  end
  return knocks[queue]
end

-- The number of apps that share a queue while this app asks, and the largest job with which another app wants to enter.
-- An app that knocks counts as if it had jobs in the queue, so that a share is kept for it.
local function claimants(queue, app)
  local apps, largest = book(queue).apps + (account(queue, app).jobs == 0 and 1 or 0), 0
  for other in pairs(knocking(queue)) do
    if other ~= app and account(queue, other).jobs == 0 then
      apps = apps + 1
      largest = math.max(largest, tonumber(redis.call('HGET', key('wishes', queue), other) or 0))
    end
  end
  return apps, largest
end

-- The tokens that an app may have in a queue shared with others. It leaves room for the largest job of a knocking app,
-- also if that exceeds a share: else small jobs would keep that job out for ever.
local function token_share(cap_tokens, apps, largest)
  return math.min(math.ceil(cap_tokens / apps), math.max(0, math.floor((cap_tokens - largest) / (apps - 1))))
end

-- Number of jobs up to a turn, including that turn.
local function ahead_of(queue, turn)
  return redis.call('ZCOUNT', key('line', queue), '-inf', turn)
end

-- Free slots of the queue's pool.
local function free_slots(queue, free_until)
  return math.max(0, free_until - departed(pool_of(queue)))
end

-- nil if one candidate has room; else the reason, and the cap that was met.
local function objection(queue, app, tokens, cap_jobs, cap_tokens, most_ahead, free)
  drop_stale(queue)
  local waiting, own = book(queue), account(queue, app)
  if waiting.depth >= cap_jobs then
    return 'depth', cap_jobs
  end
  -- A job larger than the cap may enter an empty queue.
  if waiting.depth > 0 and waiting.backlog + tokens > cap_tokens then
    return 'tokens', cap_tokens
  end
  -- An app's first job always has a share, and may be larger than it.
  if own.jobs > 0 then
    local apps, largest = claimants(queue, app)
    local share = math.ceil(cap_jobs / apps)
    if own.jobs >= share then
      return 'share', share
    end
    if apps > 1 then
      local most = token_share(cap_tokens, apps, largest)
      if own.tokens + tokens > most then
        return 'token_share', most
      end
    end
  end
  if most_ahead >= 0 and waiting.depth > 0 then
    local ahead = ahead_of(queue, next_turn(queue, app))
    if ahead >= free and waiting.expected * (ahead - free) / waiting.depth > most_ahead then
      return 'wait', most_ahead
    end
  end
  return nil
end

-- Take a place; returns its position, the depth including it, and the estimated tokens of the jobs ahead.
local function take(job, app, tokens, expected, queue)
  local waiting, turn = book(queue), next_turn(queue, app)
  local ahead = ahead_of(queue, turn)
  local before = waiting.depth > 0 and math.floor(waiting.expected * ahead / waiting.depth) or 0
  enter(job, queue, app, tokens, 1, turn, expected)
  redis.call('ZADD', key('reservations', queue), now + ttl_ms, job)
  if knocks[queue] then
    knocks[queue][app] = nil
  end
  forget_knock(queue, app)
  return ahead + 1, waiting.depth, before
end

-- The number of the candidate whose queue an entry of `waiting` names; nil for another queue.
local function candidate_of(entry, first, candidates)
  local queue = string.match(entry, '^%S+')
  for i = 1, candidates do
    if ARGV[first + (i - 1) * 5] == queue then
      return i
    end
  end
  return nil
end

local replies, at = {}, 2
while at <= #ARGV do
  local job, app, tokens, expected = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local app_cap, requests_cap, tokens_cap = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local candidates = tonumber(ARGV[at + 7])
  local entry = redis.call('HGET', PREFIX .. 'waiting', job)
  -- A second submit of a job that has its message: it keeps its place. Its insert will find the job's row.
  local held = entry and not is_reserved(job, entry) and candidate_of(entry, at + 8, candidates)
  -- A repeated ask, whose first reply was lost with its connection: the job must not count twice, nor use rates again.
  local is_paid = held or entry and leave(job)
  local first = ARGV[at + 8]
  local bucket = PREFIX .. 'rate:' .. app
  local requests_left = requests_cap >= 0 and filled(bucket, 'requests', requests_cap, now) or -1
  local tokens_left = tokens_cap >= 0 and filled(bucket, 'tokens', tokens_cap, now) or -1
  local chosen, reason, number = 0, nil, nil
  local depth, backlog, ahead
  local free = free_slots(first, tonumber(ARGV[at + 12]))

  if held then
    chosen, number, depth, backlog, ahead = held, 1, book(first).depth, book(first).backlog, 0
  elseif not is_paid and requests_cap >= 0 and requests_left < 1 then
    reason, number = 'requests_per_minute', math.ceil((1 - requests_left) * MINUTE_MS / requests_cap)
  elseif not is_paid and tokens_cap >= 0 and tokens_left < tokens then
    reason, number = 'tokens_per_minute', math.ceil((tokens - tokens_left) * MINUTE_MS / tokens_cap)
  elseif app_cap >= 0 and jobs_of_app(app) >= app_cap then
    reason, number = 'app_jobs', app_cap
  else
    for i = 1, candidates do
      local of = at + 8 + (i - 1) * 5
      local queue, cap_jobs, cap_tokens, most_ahead, free_until = unpack(ARGV, of, of + 4)
      local slots = free_slots(queue, tonumber(free_until))
      local why, about =
        objection(queue, app, tokens, tonumber(cap_jobs), tonumber(cap_tokens), tonumber(most_ahead), slots)
      if not why then
        chosen, free = i, slots
        number, depth, ahead = take(job, app, tokens, expected, queue)
        backlog = book(queue).backlog
        break
      end
      if i == 1 then
        reason, number = why, about
      end
    end
  end

  if chosen > 0 then
    reason = ''
    if not is_paid and (requests_cap >= 0 or tokens_cap >= 0) then
      requests_left = requests_cap >= 0 and requests_left - 1 or -1
      tokens_left = tokens_cap >= 0 and tokens_left - tokens or -1
      -- A rate without a limit is not stored: a limit that is set later starts with a full bucket.
      keep(bucket, 'requests', requests_left)
      keep(bucket, 'tokens', tokens_left)
      redis.call('HSET', bucket, 'at', now)
      redis.call('PEXPIRE', bucket, 2 * MINUTE_MS)
    end
  else
    depth, backlog, ahead = book(first).depth, book(first).backlog, book(first).expected
  end
  local left = {math.floor(requests_left), math.floor(tokens_left)}
  replies[#replies + 1] = {chosen, reason, number, depth, backlog, ahead, left[1], left[2], free}
  at = at + 8 + candidates * 5
end
save()
return replies
