-- Ends a node's lease. KEYS: nodes. ARGV: its id, its process.
local mine = redis.call('HGET', KEYS[1], ARGV[1])
if mine and string.match(mine, '^%d+ (%x+) ') == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
