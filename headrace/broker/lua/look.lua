-- look(app, requests a minute) -> ms until the app's rate allows one more request, 0 if it does now. Uses nothing up.
local now, limit = now_ms(), tonumber(ARGV[2])
local left = filled(PREFIX .. 'rate:' .. ARGV[1], 'requests', limit, now)
return left < 1 and math.ceil((1 - left) * MINUTE_MS / limit) or 0
