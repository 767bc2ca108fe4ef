-- begin(claim) -> text | nil: from now on only this claim, and no older one, may publish the job's tokens.
--
-- KEYS  the job's stream of {kind, text, claim, bytes, tokens}: the entry's own text, the enqueue_no of the claim that
--       wrote it, the bytes of all texts since the last restart, this entry included, and its answer's tokens by then;
--       an entry of begin_stream.lua has no tokens. Its ids are N-0 with growing N.
--       The set of the channels of the job's listeners.
-- ARGV  enqueue_no of the claim, '1' to start anew or '0', seconds the stream lives, job id, numbers reserved for one
--       claim
-- Effect  one entry: `begin`, or `restart` if the claim does not continue what readers received. Only answer text
--         (deltas) can be continued. A later claim that finds no stream cannot know what readers received: it
--         restarts. Listeners hear only of a `restart`.
--         The numbers of a claim are above those of any older claim, also of entries that a promoted replica lacks: a
--         number never stands for two pieces.
-- Reply  the text since the last restart, which the claim must continue; nil if a newer claim has begun.
local claim = tonumber(ARGV[1])
local entries = redis.call('XRANGE', KEYS[1], '-', '+')
local number, is_heard, pieces = (claim - 1) * tonumber(ARGV[5]), false, {}
if #entries == 0 then
  is_heard = claim > 1
else
  local last = entries[#entries]
  if tonumber(last[2][6]) > claim then
    return false
  end
  number = math.max(number, tonumber(string.match(last[1], '^%d+')))
  local has_more = false
  for _, entry in ipairs(entries) do
    local kind = entry[2][2]
    if kind == 'restart' then
      pieces, has_more = {}, false
    elseif kind == 'delta' then
      pieces[#pieces + 1] = entry[2][4]
    elseif kind ~= 'begin' then
      has_more = true
    end
  end
  is_heard = has_more or (ARGV[2] == '1' and last[2][8] ~= '0')
end
local text = is_heard and '' or table.concat(pieces)
local id = string.format('%.0f-0', number + 1)
redis.call('XADD', KEYS[1], id, 'kind', is_heard and 'restart' or 'begin', 'text', '', 'claim', ARGV[1], 'bytes', #text)
redis.call('EXPIRE', KEYS[1], ARGV[3])
if is_heard then
  for _, channel in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    redis.call('PUBLISH', channel, 'more ' .. ARGV[4])
  end
end
return text
