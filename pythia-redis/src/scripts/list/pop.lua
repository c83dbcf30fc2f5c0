-- Takes messages for good, where Redis has no BLMPOP. A flat reply could be mistaken for a pub/sub message, so they are
-- nested.
-- KEYS  1 ready
-- ARGV  1 how many at most
-- Returns {{messages, the oldest first}}.
return { redis.call('RPOP', KEYS[1], ARGV[1]) or {} }
