-- publish(pieces) -> {1 | 0, ...}: append each piece to its job's stream if its claim may still publish there.
--
-- KEYS  per piece, the job's stream and the set of its listeners' channels, as `begin_stream.lua` describes them
-- ARGV  seconds a stream lives, then per piece: enqueue_no of its claim, bytes of the claim's pieces before it, its
--       kind, its text, job id, tokens of the answer with it
-- Effect  one entry per piece, and one message to each listener: the piece itself, as `headrace.broker.news` describes
--         it, or `more` if it is long or the listener is of a release that knows no pieces. Bytes already in the stream
--         are not written twice, so that a call whose reply was lost can be repeated.
--         Where reasoning begins or ends, with a call of a tool, and after a restart, numbers are skipped: readers get
--         further events there.
-- Reply  per piece 1; or 0 if a newer claim has begun, or earlier text is lost and the piece would leave a gap.
local TOLD_BESIDES = 5
-- Bytes of a piece above which its listeners read it themselves: Redis holds a message for each slow one of them.
local LONG = 4096
local taken = {}
for i = 1, #KEYS / 2 do
  local key = KEYS[2 * i - 1]
  local claim, before, kind, text, job, tokens = unpack(ARGV, 6 * i - 4, 6 * i + 1)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local known = last and tonumber(last[2][8])
  if not last or last[2][6] ~= claim or known < tonumber(before) then
    taken[i] = 0
  else
    taken[i] = 1
    text = string.sub(text, known - before + 1)
    if text ~= '' then
      local before_it = tonumber(string.match(last[1], '^%d+'))
      local number = before_it + 1
      -- A claim that publishes nothing after a restart leaves a `begin` entry after it.
      local is_elsewhere = (kind == 'reasoning') ~= (last[2][2] == 'reasoning')
      is_elsewhere = is_elsewhere or kind == 'tool_call' or last[2][2] == 'tool_call'
      if (known == 0 and last[1] ~= '1-0') or is_elsewhere then
        number = number + TOLD_BESIDES
      end
      local id = string.format('%.0f-0', number)
      redis.call('XADD', key, id, 'kind', kind, 'text', text, 'claim', claim, 'bytes', known + #text, 'tokens', tokens)
      redis.call('EXPIRE', key, ARGV[1])
      local channels = redis.call('SMEMBERS', KEYS[2 * i])
      if #channels > 0 then
        -- The first entry of a stream is a `begin`, which no reader counts.
        local heard = last[1] == '1-0' and last[2][2] == 'begin' and 0 or before_it
        local piece = #text <= LONG and string.format('piece %s %.0f %.0f %s %s ', job, heard, number, tokens, kind) .. text
        for _, channel in ipairs(channels) do
          local takes_pieces = piece and string.find(channel, ':pieces:', 1, true)
          redis.call('PUBLISH', channel, takes_pieces and piece or 'more ' .. job)
        end
      end
    end
  end
end
return taken
