-- The first delayed messages, with their due times.
-- KEYS  1 delayed of the queue  2 delayed of the group
-- ARGV  1 how many of each at most
-- Returns {{member, due, ..}, {member, due, ..}}.
local last = ARGV[1] - 1
return {
  redis.call('ZRANGE', KEYS[1], 0, last, 'WITHSCORES'),
  redis.call('ZRANGE', KEYS[2], 0, last, 'WITHSCORES'),
}
