#!lua name=woolwatch

-- All writes of woolwatch to Redis. Each partition has a state hash: the epoch of its owner, and the position up to
-- which everything is in. A call checks both, writes absolute values, moves the position: a repeat changes nothing, a
-- former owner is refused, and if Redis forgot something, the caller hears of it instead of writing behind a gap.
--
-- The only declared key is the state; the others begin with its hash tag, so they live on the same node.

local function whole(text)
  local number = tonumber(text)
  if number == nil or number < 0 or number ~= math.floor(number) then
    error({err = 'WOOLWATCH expected a whole number'})
  end
  return number
end

-- Whether a reply says that somebody made a key of ours into something else; any other error ends the call.
local function is_foreign(reply)
  if type(reply) ~= 'table' or not reply.err then
    return false
  elseif string.sub(reply.err, 1, 9) ~= 'WRONGTYPE' then
    error(reply)
  end
  return true
end

-- Epoch and position; a state that somebody overwrote is none.
local function held(state)
  local values = redis.pcall('HMGET', state, 'epoch', 'position')
  if is_foreign(values) then
    redis.call('DEL', state)
    return -1, 0
  end
  return tonumber(values[1] or -1), tonumber(values[2] or 0)
end

-- 'write', or why not, and the position. What completes nothing comes with to = from.
local function guard(state, epoch, from, to)
  local held_epoch, position = held(state)
  if epoch < held_epoch then
    return 'stale', position
  elseif epoch > held_epoch or position < from then
    return 'forgot', position
  elseif to < from or (position > from and position >= to) then
    return 'done', position
  end
  return 'write', position
end

local function columns_of(packed, count)
  local ok, columns = pcall(cmsgpack.unpack, packed)
  if not ok or type(columns) ~= 'table' or #columns ~= count then
    error({err = 'WOOLWATCH expected ' .. count .. ' packed columns'})
  end
  for _, column in ipairs(columns) do
    if #column ~= #columns[1] then
      error({err = 'WOOLWATCH expected columns of one length'})
    end
  end
  return columns
end

-- args: epoch, position to begin at if there is less, key that notes the fingerprint, fingerprint. What is skipped so
-- is to be restored: ``lacks`` keeps from where on until all of it is, over any number of owners.
local function take_over(keys, args)
  local epoch, at_least = whole(args[1]), whole(args[2])
  local held_epoch, position = held(keys[1])
  local fingerprint = redis.call('GET', args[3])
  if fingerprint and fingerprint ~= args[4] then
    return {'key', position}
  elseif epoch < held_epoch then
    return {'stale', position}
  end
  redis.call('SET', args[3], args[4])
  if epoch > held_epoch then
    redis.call('HDEL', keys[1], 'restored')
  end
  if position < at_least then
    local lacks = math.min(position, tonumber(redis.call('HGET', keys[1], 'lacks') or position))
    redis.call('HSET', keys[1], 'epoch', args[1], 'position', args[2], 'lacks', string.format('%.0f', lacks))
  else
    redis.call('HSET', keys[1], 'epoch', args[1], 'position', string.format('%.0f', position))
  end
  return {'taken', position}
end

-- Sets fields of a key that is ours, whatever somebody made of it.
local function hset(key, ...)
  if is_foreign(redis.pcall('HSET', key, ...)) then
    redis.call('DEL', key)
    redis.call('HSET', key, ...)
  end
end

local KEYS_A_CALL = 1000 -- Lua can not spread many more over one call's arguments

local function unlink(prefix, names)
  for first = 1, #names, KEYS_A_CALL do
    local keys = {}
    for i = first, math.min(first + KEYS_A_CALL - 1, #names) do
      keys[#keys + 1] = prefix .. names[i]
    end
    redis.call('UNLINK', unpack(keys))
  end
end

-- Lets a key live for so long, but never shorter than it would.
local function prolong(key, ttl_ms)
  if redis.call('PTTL', key) < tonumber(ttl_ms) then
    redis.call('PEXPIRE', key, ttl_ms)
  end
end

-- Shows some verdicts, and takes others away. first: the first of four packed tables in args: users, devices, users and
-- devices that nothing is held against any more. The last column of users and devices is their time to live.
local function show(prefix, field, args, first)
  local users, devices = columns_of(args[first], 10), columns_of(args[first + 1], 3)
  local clear_users, clear_devices = columns_of(args[first + 2], 1)[1], columns_of(args[first + 3], 1)[1]
  for i = 1, #users[1] do
    local key = prefix .. 'user:' .. users[1][i]
    hset(key, 'reasons', users[2][i], 'score', users[3][i], 'level', users[4][i],
      'event', users[5][i], 'event_id', users[6][i], 'ts', users[7][i], 'campaign', users[8][i],
      'config_hash', users[9][i])
    redis.call('PEXPIRE', key, users[10][i])
  end
  for i = 1, #devices[1] do
    local key = prefix .. 'device:' .. devices[1][i]
    hset(key, field, devices[2][i])
    prolong(key, devices[3][i])
  end
  unlink(prefix .. 'user:', clear_users)
  for i = 1, #clear_devices do
    local key = prefix .. 'device:' .. clear_devices[i]
    if is_foreign(redis.pcall('HDEL', key, field)) then
      redis.call('DEL', key)
    end
  end
end

-- args: epoch, from, to, prefix of the keys, field of the devices, four packed tables as show takes them
local function judge_write(keys, args)
  local epoch, from, to = whole(args[1]), whole(args[2]), whole(args[3])
  local answer, position = guard(keys[1], epoch, from, to)
  if answer ~= 'write' then
    return {answer, position}
  end
  show(args[4], args[5], args, 6)
  if to > from then
    redis.call('HSET', keys[1], 'position', args[3])
    position = to
  end
  return {'written', position}
end

-- args: epoch, turn that the owner began at, number of the call, 1 if it is the last, prefix, field, four packed tables:
-- what Redis forgot of the turns before that one. A call that comes again, or too late, changes nothing.
local function judge_restore(keys, args)
  local epoch, began, number, is_last = whole(args[1]), whole(args[2]), whole(args[3]), whole(args[4])
  local held_epoch, position = held(keys[1])
  if epoch < held_epoch then
    return {'stale', position}
  elseif epoch > held_epoch or position < began then
    return {'forgot', position}
  elseif number <= tonumber(redis.call('HGET', keys[1], 'restored') or -1) then
    return {'done', position}
  end
  show(args[5], args[6], args, 7)
  redis.call('HSET', keys[1], 'restored', args[3])
  if is_last == 1 then
    redis.call('HDEL', keys[1], 'lacks')
  end
  return {'written', position}
end

-- args: epoch, from, to, packed keys, fields and values; an empty value removes the field
local function metric_write(keys, args)
  local epoch, from, to = whole(args[1]), whole(args[2]), whole(args[3])
  local rows = columns_of(args[4], 3)
  local answer, position = guard(keys[1], epoch, from, to)
  if answer ~= 'write' then
    return {answer, position}
  end
  local lost_some = false
  for i = 1, #rows[1] do
    local reply
    if rows[3][i] == '' then
      reply = redis.pcall('HDEL', rows[1][i], rows[2][i])
    else
      reply = redis.pcall('HSET', rows[1][i], rows[2][i], rows[3][i])
    end
    if is_foreign(reply) then
      redis.call('DEL', rows[1][i])
      lost_some = true
    end
  end
  if lost_some then -- their other fields are gone, so all must be written again
    redis.call('DEL', keys[1])
    return {'forgot', 0}
  end
  if to > from then
    redis.call('HSET', keys[1], 'position', args[3])
    position = to
  end
  return {'written', position}
end

-- Drops a key of ours that somebody made into something else.
local function drop_foreign(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    redis.call('DEL', key)
  end
end

-- keys: the stream; args: key that remembers whom it told, how many to keep in the stream, how many to remember,
-- packed alerts: a key, and fields and values in turn. Adds each alert once; answers how many it added.
local function alert_write(keys, args)
  local told, keep, remember = args[1], whole(args[2]), whole(args[3])
  local alerts = columns_of(args[4], 2)
  drop_foreign(keys[1], 'stream')
  drop_foreign(told, 'zset')
  local newest = redis.call('ZREVRANGE', told, 0, 0, 'WITHSCORES')
  local number, added = tonumber(newest[2] or 0), 0
  for i = 1, #alerts[1] do
    if not redis.call('ZSCORE', told, alerts[1][i]) then
      number, added = number + 1, added + 1
      redis.call('XADD', keys[1], 'MAXLEN', '~', keep, '*', unpack(alerts[2][i]))
      redis.call('ZADD', told, number, alerts[1][i])
    end
  end
  redis.call('ZREMRANGEBYRANK', told, 0, -(remember + 1))
  return {'written', added}
end

redis.register_function('woolwatch_take_over', take_over)
redis.register_function('woolwatch_judge_write', judge_write)
redis.register_function('woolwatch_judge_restore', judge_restore)
redis.register_function('woolwatch_metric_write', metric_write)
redis.register_function('woolwatch_alert_write', alert_write)
