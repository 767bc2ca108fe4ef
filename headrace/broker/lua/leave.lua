-- leave(jobs) -> how many were there: remove jobs that no longer wait from the books. Their messages stay.
--
-- ARGV  for each: job, and the enqueue_no of the stay that is over
local left = 0
for i = 1, #ARGV, 2 do
  if leave(ARGV[i], ARGV[i + 1]) then
    left = left + 1
  end
end
save()
return left
