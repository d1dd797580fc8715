-- Accepts one command in its partition. KEYS: transaction, lane, own, log, ids, the client's orders.
-- ARGV: the most that may wait ('' = any), the store time in ms from which it is too old, the lane's
-- entry, client ('' = the house), feed entry, when, the id for the client's orders ('' = none), the id,
-- then fields and values.
local first = redis.call('HGET', KEYS[1], '\0\0\0')
if first then return { 'there', first } end
if redis.call('HEXISTS', KEYS[1], 'void') == 1 then return { 'void' } end
local now = redis.call('TIME')
if tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) > tonumber(ARGV[2]) then return { 'old' } end
if ARGV[1] ~= '' and redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[1]) then return { 'full' } end
for i = 9, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[5], 0, ARGV[8])
if ARGV[7] ~= '' then redis.call('ZADD', KEYS[6], 0, ARGV[7]) end
redis.call('XADD', KEYS[2], '0-*', 'i', ARGV[3])
if ARGV[4] ~= '' then
  local epoch = redis.call('HGET', KEYS[3], 'e') or '0'
  redis.call('XADD', KEYS[4], epoch .. '-*', 'c', ARGV[4], 'e', ARGV[5], 'a', ARGV[6])
end
return { 'new' }
