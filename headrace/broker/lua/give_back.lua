-- give_back(jobs) -> how many were there: remove reservations whose jobs were not inserted.
--
-- ARGV  the jobs
-- A job that has its message was inserted by another submit, or its insert's reply was lost: it keeps its place.
local given = 0
for _, job in ipairs(ARGV) do
  local entry = redis.call('HGET', PREFIX .. 'waiting', job)
  if entry and is_reserved(job, entry) and leave(job, 1) then
    given = given + 1
  end
end
save()
return given
