-- Raises counters that are behind. KEYS: a hash. ARGV: fields and the values that they have at least.
for i = 1, #ARGV, 2 do
  local found = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  if found < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
