-- Makes sure that an id can never be appended under, unless it already was. KEYS: transaction.
-- ARGV: how long the mark stays, in s: longer than an append may be late.
local first = redis.call('HGET', KEYS[1], '\0\0\0')
if first then return first end
redis.call('HSET', KEYS[1], 'void', '1')
redis.call('EXPIRE', KEYS[1], ARGV[1])
return false
