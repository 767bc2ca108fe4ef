-- check(queue, before, now) -> 1, or 0 where another mark is there: all jobs of the queue up to here were checked.
--
-- ARGV  the queue, the mark that was read, the new one
-- The mark that was read is gone when Redis was wiped meanwhile: what was checked then says nothing any more.
local mark = key('checked', ARGV[1])
if (redis.call('GET', mark) or '') ~= ARGV[2] then
  return 0
end
redis.call('SET', mark, ARGV[3])
return 1
