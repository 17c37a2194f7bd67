-- Removes twins that go by another name now, if the writer's epoch holds the site's fence (invariant D).
--
-- KEYS  1 fence of the site   2 index of its twins   3.. one per twin
-- ARGV  1 epoch   then the devices' names
-- Returns as live-state.lua.
local fence = tonumber(redis.call('GET', KEYS[1]) or '-1')
local epoch = tonumber(ARGV[1])
if fence > epoch then return 0 end
if fence < epoch then return -1 end
for i = 3, #KEYS do
  redis.call('ZREM', KEYS[2], ARGV[i - 1])
  redis.call('DEL', KEYS[i])
end
return 1
