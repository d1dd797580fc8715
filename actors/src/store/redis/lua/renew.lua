-- Renews a node's lease and tells who is there. KEYS: nodes, homes. ARGV: its id, its process, what is
-- known of it, how long the lease is in ms, '1' when the process is new here, '1' when those whose lease is
-- over are taken off, the version of the assignment that is known. Answers the version, the assignment
-- ('' when it is the known one), then what is known of each node; or nothing when another process has
-- the id.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local mine = redis.call('HGET', KEYS[1], ARGV[1])
if mine and ARGV[5] ~= '1' and string.match(mine, '^%d+ (%x+) ') ~= ARGV[2] then return {} end
local till = string.format('%.0f', now + tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], ARGV[1], till .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
local homes = redis.call('GET', KEYS[2]) or '0 '
local version, assignment = string.match(homes, '^(%d+) (.*)$')
if version == ARGV[7] then assignment = '' end
local answer = { version, assignment }
local nodes = redis.call('HGETALL', KEYS[1])
for i = 1, #nodes, 2 do
  local till, known = string.match(nodes[i + 1], '^(%d+) %x+ (.*)$')
  if ARGV[6] == '1' and tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], nodes[i])
  else
    answer[#answer + 1] = known
  end
end
return answer
