-- reserve(asks) -> places or refusals: take a place for each in the first queue that has room, or say why none has.
-- Atomic, so that no cap is ever overshot, whoever asks at the same time.
--
-- ARGV  seconds a reservation lives, then for each ask:
--         job, app, tokens, the app's caps (jobs waiting, requests and tokens a minute; -1 for none),
--         number of candidates, and for each: queue, cap in jobs, cap in tokens, most tokens ahead (-1: any)
-- Reply  for each ask {candidate or 0, reason, number, depth, tokens, requests left, tokens left}, where
--         a place has its position in `number` and the tokens before it in `tokens`;
--         a refusal has what the reason is about in `number`: a cap in jobs or tokens, or ms until the rate allows it.
--         Depth and tokens are then the first candidate's. What is left of a rate that is not limited is -1.
-- Effect  each place is in the books and has a reservation; each rate is used up by what was admitted alone.
local MINUTE_MS = 60000
local now = now_ms()
local ttl_ms = ARGV[1] * 1000

-- A bucket holds a minute's worth, and fills as the minute passes.
local function filled(bucket, name, limit)
  local left, at = redis.call('HGET', bucket, name), redis.call('HGET', bucket, 'at')
  if not left then
    return limit
  end
  return math.min(limit, left + math.max(0, now - at) * limit / MINUTE_MS)
end

local function keep(bucket, name, left)
  if left >= 0 then
    redis.call('HSET', bucket, name, left)
  else
    redis.call('HDEL', bucket, name)
  end
end

-- Room in one candidate: nil, or the reason against it and what that is about.
local function objection(queue, app, tokens, cap_jobs, cap_tokens, most_ahead)
  local depth = redis.call('ZCARD', key('line', queue))
  local backlog = tonumber(redis.call('GET', key('backlog', queue)) or 0)
  if depth >= cap_jobs then
    return 'depth', cap_jobs
  end
  -- A job that is larger than the cap has the queue for itself.
  if depth > 0 and backlog + tokens > cap_tokens then
    return 'tokens', cap_tokens
  end
  -- An app that was refused here, and comes back soon, counts as if it had work: the next place is its own.
  local apps = redis.call('HLEN', key('jobs', queue))
  local mine = tonumber(redis.call('HGET', key('jobs', queue), app) or 0)
  if mine == 0 then
    apps = apps + 1
  end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', key('knocks', queue), '(' .. now, '+inf')) do
    if other ~= app and redis.call('HEXISTS', key('jobs', queue), other) == 0 then
      apps = apps + 1
    end
  end
  local share = math.ceil(cap_jobs / apps)
  if mine >= share then
    return 'share', share
  end
  if most_ahead >= 0 and depth > 0 then
    local turn = next_turn(queue, app)
    local ahead = redis.call('ZCOUNT', key('line', queue), '-inf', turn)
    if backlog * ahead / depth > most_ahead then
      return 'wait', most_ahead
    end
  end
  return nil
end

local function drop_stale(queue)
  local reservations = key('reservations', queue)
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', reservations, '-inf', now, 'LIMIT', 0, 100)) do
    if not leave(job) then
      redis.call('ZREM', reservations, job)
    end
  end
  redis.call('ZREMRANGEBYSCORE', key('knocks', queue), '-inf', now)
end

local function take(job, app, tokens, queue)
  local turn = next_turn(queue, app)
  local depth = redis.call('ZCARD', key('line', queue))
  local ahead = redis.call('ZCOUNT', key('line', queue), '-inf', turn)
  local backlog = tonumber(redis.call('GET', key('backlog', queue)) or 0)
  enter(job, queue, app, tokens, 1, turn)
  redis.call('ZADD', key('reservations', queue), now + ttl_ms, job)
  redis.call('ZREM', key('knocks', queue), app)
  local before = depth > 0 and math.floor(backlog * ahead / depth) or 0
  return ahead + 1, depth + 1, before
end

local replies, seen, at = {}, {}, 2
while at <= #ARGV do
  local job, app, tokens = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local app_cap, requests_cap, tokens_cap = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local candidates = tonumber(ARGV[at + 6])
  -- Asked once more, because the answer was lost with its connection: it must not count twice, and its rates are paid.
  local is_paid = leave(job)
  local first = ARGV[at + 7]
  local bucket = PREFIX .. 'rate:' .. app
  local requests_left = requests_cap >= 0 and filled(bucket, 'requests', requests_cap) or -1
  local tokens_left = tokens_cap >= 0 and filled(bucket, 'tokens', tokens_cap) or -1
  local chosen, reason, number = 0, nil, nil
  local depth, ahead

  if not is_paid and requests_cap >= 0 and requests_left < 1 then
    reason, number = 'requests_per_minute', math.ceil((1 - requests_left) * MINUTE_MS / requests_cap)
  elseif not is_paid and tokens_cap >= 0 and tokens_left < tokens then
    reason, number = 'tokens_per_minute', math.ceil((tokens - tokens_left) * MINUTE_MS / tokens_cap)
  elseif app_cap >= 0 and tonumber(redis.call('HGET', PREFIX .. 'app_jobs', app) or 0) >= app_cap then
    reason, number = 'app_jobs', app_cap
  else
    for i = 1, candidates do
      local of = at + 7 + (i - 1) * 4
      local queue = ARGV[of]
      if not seen[queue] then
        seen[queue] = true
        drop_stale(queue)
      end
      local why, about = objection(queue, app, tokens, tonumber(ARGV[of + 1]), tonumber(ARGV[of + 2]), tonumber(ARGV[of + 3]))
      if not why then
        chosen = i
        number, depth, ahead = take(job, app, tokens, queue)
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
      -- What is not limited is not kept: a limit that is set later starts with a full minute.
      keep(bucket, 'requests', requests_left)
      keep(bucket, 'tokens', tokens_left)
      redis.call('HSET', bucket, 'at', now)
      redis.call('PEXPIRE', bucket, 2 * MINUTE_MS)
    end
  else
    depth = redis.call('ZCARD', key('line', first))
    ahead = tonumber(redis.call('GET', key('backlog', first)) or 0)
  end
  replies[#replies + 1] = {chosen, reason, number, depth, ahead, math.floor(requests_left), math.floor(tokens_left)}
  at = at + 7 + candidates * 4
end
return replies
