-- Checks, then writes, all of one slot. ARGV is a flat program: each check or write by its name, the
-- number of its key and its operands; '.' ends the checks. Nothing is written unless every check holds.
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
while true do
  local check = take()
  if check == '.' then break end
  local key = KEYS[tonumber(take())]
  if check == 'fence' then
    local epoch, nonce = take(), take()
    if redis.call('HGET', key, 'e') ~= epoch or redis.call('HGET', key, 'n') ~= nonce then return 'fence' end
  elseif check == 'same' then
    local field, value = take(), take()
    if (redis.call('HGET', key, field) or '') ~= value then return 'moved' end
  elseif check == 'new' then
    if redis.call('HEXISTS', key, take()) == 1 then return 'there' end
  elseif check == 'entry' then
    local n = '0-' .. take()
    if #redis.call('XRANGE', key, n, n) == 0 then return 'gone' end
  else
    return redis.error_reply('ERR a check that is not known: ' .. check)
  end
end
while at < #ARGV do
  local write = take()
  local key = KEYS[tonumber(take())]
  if write == 'set' then
    local field, value = take(), take()
    redis.call('HSET', key, field, value)
  elseif write == 'del' then
    redis.call('HDEL', key, take())
  elseif write == 'add' then
    redis.call('ZADD', key, 0, take())
  elseif write == 'rem' then
    redis.call('ZREM', key, take())
  elseif write == 'push' then
    redis.call('XADD', key, '0-*', 'i', take())
  elseif write == 'take' then
    redis.call('XDEL', key, '0-' .. take())
  elseif write == 'log' then
    local epoch = redis.call('HGET', KEYS[tonumber(take())], 'e') or '0'
    local client, entry, when = take(), take(), take()
    redis.call('XADD', key, epoch .. '-*', 'c', client, 'e', entry, 'a', when)
  elseif write == 'feed' then
    local n, entry, when = take(), take(), take()
    redis.call('XADD', key, '0-' .. n, 'e', entry, 'a', when)
  elseif write == 'bump' then
    redis.call('HINCRBY', key, 'v', 1)
  elseif write == 'drop' then
    -- Its version alone is no row.
    if redis.call('HLEN', key) == 1 and redis.call('HEXISTS', key, 'v') == 1 then redis.call('DEL', key) end
  end
end
return 'ok'
