-- Fences one site for an epoch (invariant D): from now on no earlier one writes. Where there was no fence, Redis came back
-- empty: until the owner has written every twin the site does not count as whole, and nobody is shown half of it.
--
-- KEYS  1 fence of the site   2 its mark of being whole
-- ARGV  1 epoch
-- Returns 1 when fenced, 0 when a later epoch has taken over.
local fence = tonumber(redis.call('GET', KEYS[1]) or '-1')
if fence > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if fence == -1 then redis.call('DEL', KEYS[2]) end
return 1
