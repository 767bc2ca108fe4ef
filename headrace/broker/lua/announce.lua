-- announce(jobs) -> nothing: tell a job's listeners, the webhook workers and Flower that these jobs have ended.
--
-- KEYS  per job, the set of its listeners' channels; then the bell of the webhook workers, if there are deliveries
-- ARGV  the channel that Flower's events come from, the jobs for it, apart by spaces, or empty; then per key of a job
--       the job id
-- Effect  one message per job and listener. An ended job has no more news: its listeners are forgotten.
for i = 3, #ARGV do
  local key = KEYS[i - 2]
  for _, channel in ipairs(redis.call('SMEMBERS', key)) do
    redis.call('PUBLISH', channel, 'ended ' .. ARGV[i])
  end
  redis.call('DEL', key)
end
local bell = KEYS[#ARGV - 1]
if bell then
  redis.call('XADD', bell, 'MAXLEN', 1, '*', 'queues', 'new')
end
if ARGV[2] ~= '' then
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
