-- discard(messages) -> how many were there: remove stale messages from a list. The books stay.
--
-- ARGV  the queue, then the messages, which are near an end of the list
local removed = 0
for i = 2, #ARGV do
  if pluck(ARGV[1], ARGV[i]) then
    removed = removed + 1
  end
end
return removed
