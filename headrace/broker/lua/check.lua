-- check(queue, before, now) -> 1, or 0 if the mark is not `before`: move the mark up to which all jobs were checked.
--
-- ARGV  the queue, the mark that was read, the new mark
-- If Redis was wiped meanwhile, the mark that was read is gone, and the check is void.
local mark = key('checked', ARGV[1])
if (redis.call('GET', mark) or '') ~= ARGV[2] then
  return 0
end
redis.call('SET', mark, ARGV[3])
return 1
