-- History has these transitions: they leave the outbox for the list of what was told. One that has moved on meanwhile, as an
-- incident that was cleared while its opening was on its way, stays.
--
-- KEYS  1 outbox of the site   2 its list of what was told
-- ARGV  1 how long the list may be; then per transition: incident id, the text as it was written
-- Returns how many have left.
local settled = 0
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('LPUSH', KEYS[2], ARGV[i + 1])
    settled = settled + 1
  end
end
if settled > 0 then redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[1]) - 1) end
return settled
