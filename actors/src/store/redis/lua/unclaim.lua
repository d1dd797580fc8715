-- Frees a claim that is still as it was seen. KEYS: claim. ARGV: what it held.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
