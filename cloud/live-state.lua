-- Writes changed twins of one site, if the writer's epoch holds the site's fence (invariant D).
--
-- KEYS  1 fence of the site   2 index of its twins   3 its outbox   4.. one per twin
-- ARGV  1 epoch   2 time to live of a twin, seconds   3 how many twins   4 how many outbox entries
--       5 now in ms, for the index: a twin leaves it when its key has expired
--       then per twin: device name, state; then per outbox entry: field, value
-- Returns 1 when written, 0 when a later epoch has taken over, -1 when the fence is not there, or an older one: this Redis
-- came back empty or older, and whoever owns the site has to fence it again first.
local fence = tonumber(redis.call('GET', KEYS[1]) or '-1')
local epoch = tonumber(ARGV[1])
if fence > epoch then return 0 end
if fence < epoch then return -1 end

local ttl, twins, entries = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local next = 6
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', tonumber(ARGV[5]) - 1000 * tonumber(ARGV[2]))
for i = 1, twins do
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[next])
  redis.call('SET', KEYS[3 + i], ARGV[next + 1], 'EX', ttl)
  next = next + 2
end
for _ = 1, entries do
  redis.call('HSET', KEYS[3], ARGV[next], ARGV[next + 1])
  next = next + 2
end
return 1
