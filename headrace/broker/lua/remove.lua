-- remove(messages) -> how many were there: take jobs that have ended out of the books, and their messages out of the lists.
--
-- ARGV  for each: queue, job, enqueue_no, message
-- A message that is far from both ends of its list stays: no claim takes it, and `discard` finds it when it comes near.
local removed = 0
for i = 1, #ARGV, 4 do
  local queue, job, enqueue_no, message = unpack(ARGV, i, i + 3)
  if pluck(queue, message) then
    removed = removed + 1
  end
  leave(job, enqueue_no)
end
save()
return removed
