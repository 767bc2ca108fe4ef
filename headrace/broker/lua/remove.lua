-- remove(messages) -> how many were there: remove ended jobs from the books, and their messages from the lists.
--
-- ARGV  for each: queue, job, enqueue_no, message
-- A message far from both ends of its list stays. It cannot be claimed, and `discard` removes it near the list's end.
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
