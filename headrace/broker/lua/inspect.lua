-- inspect(queues) -> for each {mark, missing, taken}: up to where its jobs were checked ('' for none), how many messages its
-- list lacks, and the "job enqueue_no" of those that were taken and not claimed for too long. Changes nothing.
--
-- ARGV  ms that a claim may take, how many taken ones to tell of, then the queues
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
