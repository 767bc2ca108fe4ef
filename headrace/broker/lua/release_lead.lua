-- release(leader): lets another job lead, if this one does.
--
-- KEYS  the flight: the leader's id. It expires by itself.
-- ARGV  the job's id
-- Effect  none if another job leads: a job that was slow, or that never led, must not end that one's turn.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
