-- commit(message) -> 1: turn a reservation into the queue's message. The depth stays the same.
--
-- KEYS  the queue's list of messages; its reservations
-- ARGV  job id, message
-- Effect  ZREM and LPUSH in one step; workers take from the other end.
-- A reservation that ran out is no obstacle: the job is in Postgres, so its message must be in the list.
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('LPUSH', KEYS[1], ARGV[2])
return 1
