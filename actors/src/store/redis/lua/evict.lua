-- Drops the first entries of a feed and what they say. KEYS: feed, notices. ARGV: the first sequence
-- that stays, then fields of notices.
redis.call('XTRIM', KEYS[1], 'MINID', '0-' .. ARGV[1])
for i = 2, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return 1
