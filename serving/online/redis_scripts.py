"""What Redis does in one step: every change to the state, each with the condition under which it may be made.

An entity is `epoch, position, mark` (three int64) and then its records; a view's head is `epoch, position, complete_through,
past, base`. All keys of a view lie in one hash slot. Integers stay below 2^53, which is as far as Lua counts.

The server that a writer talks to may change between two of its commands, and the new one may lack the last of what the old
one had confirmed. So an append looks at the head it relies on, and a head is moved on only where the appends before it
were made. What a lagging replica has is always a beginning of what its master did, hence a state that was true once.
"""

from __future__ import annotations

SERVER = """
local function server()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  return (run or '') .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
end
"""

WHERE = (
    SERVER
    + """
-- KEYS head. What the head is, and which server says so.
return {redis.call('GET', KEYS[1]) or '', server()}
"""
)

APPEND = """
-- KEYS records, heap, head or lock; ARGV epoch, previous position or lock's token, loading, bytes of a record, records, heap, mark.
-- Appends the records whose sequence is greater than the entity's position. Returns how many, and bytes in all.
local epoch, width, count = tonumber(ARGV[1]), tonumber(ARGV[4]), 0
local guard = redis.call('GET', KEYS[3])
if ARGV[3] == '1' then
  if guard ~= ARGV[2] then return {-1, 0} end
else
  if not guard then return {-1, 0} end
  local e, p = struct.unpack('<i8i8', guard)
  if e ~= epoch or p < tonumber(ARGV[2]) then return {-1, 0} end
end
local records, heap = ARGV[5], ARGV[6]
local known, position = redis.call('GETRANGE', KEYS[1], 0, 23), -1
local fresh = #known < 24
if not fresh then
  local e, p = struct.unpack('<i8i8', known)
  if e > epoch then return {-1, 0} end
  if e == epoch then position = p else fresh = true end
end
local total, skip, heapskip = #records / width, 0, 0
while skip < total do
  local s, h = struct.unpack('<i8I4', records, skip * width + 1)
  if s > position then break end
  skip, heapskip = skip + 1, heapskip + h
end
if skip == total and not fresh then return {0, redis.call('STRLEN', KEYS[1])} end
local last = struct.unpack('<i8', records, (total - 1) * width + 1)
if skip > 0 then records, heap = string.sub(records, skip * width + 1), string.sub(heap, heapskip + 1) end
if fresh then
  redis.call('SET', KEYS[1], struct.pack('<i8i8', epoch, last) .. ARGV[7] .. records)
  if #heap > 0 then redis.call('SET', KEYS[2], heap) else redis.call('DEL', KEYS[2]) end
else
  redis.call('SETRANGE', KEYS[1], 0, struct.pack('<i8i8', epoch, last))
  redis.call('APPEND', KEYS[1], records)
  if #heap > 0 then redis.call('APPEND', KEYS[2], heap) end
end
return {total - skip, redis.call('STRLEN', KEYS[1]) + redis.call('STRLEN', KEYS[2])}
"""

REPLACE = """
-- KEYS records, heap; ARGV the first 24 bytes as they were read, bytes of both keys, the first 24 bytes from now on, records, heap.
-- Puts other records in the place of those that were read, if nothing was appended since.
if redis.call('GETRANGE', KEYS[1], 0, 23) ~= ARGV[1] then return 0 end
if redis.call('STRLEN', KEYS[1]) ~= tonumber(ARGV[2]) then return 0 end
if redis.call('STRLEN', KEYS[2]) ~= tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[4] .. ARGV[5])
if #ARGV[6] > 0 then redis.call('SET', KEYS[2], ARGV[6]) else redis.call('DEL', KEYS[2]) end
return 1
"""

ADVANCE = (
    SERVER
    + """
-- KEYS head; ARGV epoch, previous position, position, complete_through, server.
-- Moves the head on, never back, if it is of this epoch, has the rows that the writer relies on, and nothing was lost since.
local raw = redis.call('GET', KEYS[1])
if not raw then return 'missing' end
local e, p, c = struct.unpack('<i8i8i8', raw)
if e ~= tonumber(ARGV[1]) then return 'foreign' end
if p < tonumber(ARGV[2]) then return 'lost' end
if server() ~= ARGV[5] then return 'moved' end
p, c = math.max(p, tonumber(ARGV[3])), math.max(c, tonumber(ARGV[4]))
redis.call('SET', KEYS[1], struct.pack('<i8i8i8', e, p, c) .. string.sub(raw, 25))
return 'done'
"""
)

CLAIM = (
    SERVER
    + """
-- KEYS head, lock; ARGV token, milliseconds, the epoch that is not to be trusted (-1 for none).
-- Takes the lock for building a new epoch, and the head away, so that nobody answers from it. Returns the new epoch.
local raw, floor = redis.call('GET', KEYS[1]), tonumber(ARGV[3])
if raw then
  local e = struct.unpack('<i8', raw)
  if e > floor then return {'there', 0, ''} end
  floor = e
end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'locked', 0, ''} end
local now = redis.call('TIME')
redis.call('DEL', KEYS[1])
return {'claimed', math.max(tonumber(now[1]) * 1000000 + tonumber(now[2]), floor + 1), server()}
"""
)

ESTABLISH = (
    SERVER
    + """
-- KEYS head, lock; ARGV token, epoch, position, complete_through, server, past.
-- Lets a new epoch be read, if it was built under one lock on one server.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or server() ~= ARGV[5] then return 0 end
redis.call('SET', KEYS[1], struct.pack('<i8i8i8i8i8',
  tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(ARGV[3])))
redis.call('DEL', KEYS[2])
return 1
"""
)

HOLD = """
-- KEYS lock; ARGV token, milliseconds (0 to let go).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

SWEEP = """
-- KEYS records, heap; ARGV epoch. Drops an entity of an older epoch, of which the log has no rows any more.
local known = redis.call('GETRANGE', KEYS[1], 0, 7)
if #known == 8 and struct.unpack('<i8', known) < tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1], KEYS[2]) end
return 0
"""
