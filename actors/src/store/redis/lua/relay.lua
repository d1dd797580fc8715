-- Numbers entries of a partition's log in the feeds of one shard. KEYS: next, marks, then feeds and
-- numbers of transactions. ARGV: partition, then for each entry its epoch, its n, the key of the feed,
-- its client, the entry, when, the key of the transaction's numbers (0 = none) and the field there.
-- What is not behind the partition's mark was numbered before.
local mark = redis.call('HGET', KEYS[2], ARGV[1]) or '0-0'
local epoch, n = string.match(mark, '^(%d+)-(%d+)$')
epoch, n = tonumber(epoch), tonumber(n)
local last = {}
for i = 2, #ARGV, 8 do
  local e, m = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if e > epoch or (e == epoch and m > n) then
    local client = ARGV[i + 3]
    local seq = (last[client] or tonumber(redis.call('HGET', KEYS[1], client) or '0')) + 1
    last[client] = seq
    redis.call('XADD', KEYS[tonumber(ARGV[i + 2])], '0-' .. seq, 'e', ARGV[i + 4], 'a', ARGV[i + 5])
    local numbers = tonumber(ARGV[i + 6])
    if numbers > 0 then redis.call('HSET', KEYS[numbers], ARGV[i + 7], seq) end
    epoch, n, mark = e, m, ARGV[i] .. '-' .. ARGV[i + 1]
  end
end
for client, seq in pairs(last) do redis.call('HSET', KEYS[1], client, seq) end
redis.call('HSET', KEYS[2], ARGV[1], mark)
return mark
