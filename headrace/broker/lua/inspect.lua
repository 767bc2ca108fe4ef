-- inspect(queues) -> for each {mark, missing, taken}: the mark up to which its jobs were checked ('' for none), the
-- number of messages its list lacks, and "job enqueue_no" of those taken but not claimed in time. Changes nothing.
--
-- ARGV  ms that a claim may take, the most taken ones to return for each queue, then the queues
local before, most = now_ms() - tonumber(ARGV[1]), ARGV[2]
local found = {}
for i = 3, #ARGV do
  local queue = ARGV[i]
  local out = redis.call('ZCARD', key('reservations', queue)) + redis.call('ZCARD', key('taken', queue))
  found[#found + 1] = {
    redis.call('GET', key('checked', queue)) or '',
    redis.call('ZCARD', key('line', queue)) - out - redis.call('LLEN', PREFIX .. queue),
    redis.call('ZRANGEBYSCORE', key('taken', queue), '-inf', before, 'LIMIT', 0, most),
  }
end
return found
