-- Takes note that one more Idempotency-Key leads to a transaction, up to a number. KEYS: transaction.
-- ARGV: the field, its value, the most. Answers 0 when it is not to be claimed.
local keys = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field == ARGV[1] then return 1 end
  if string.byte(field) == 3 then keys = keys + 1 end
end
if keys >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
