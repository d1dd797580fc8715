-- Writes the next assignment. KEYS: homes. ARGV: the version that it follows, the next one, the assignment.
local version = string.match(redis.call('GET', KEYS[1]) or '0 ', '^%d+')
if version ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3])
return 1
