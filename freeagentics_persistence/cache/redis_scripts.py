"""The scripts that put entries and memberships: each compares versions where the data is, in one step.

Those about entries take the cache sink's marker as their first key, then the keys of entries. Versions are compared as
numbers, which is exact up to 2^53. What is no entry has no version, and goes. Why they leave nothing older behind is
told in redis_cache.py.
"""

from __future__ import annotations

_COMMON = """
local function version_of(there)
    if type(there) ~= 'string' or #there < 26 or there:byte(1) ~= 1 or (#there > 26) ~= (there:byte(26) == 1) then
        return -1
    end
    local version = struct.unpack('>I8', there, 2)
    return version > 0 and version <= 9007199254740992 and version or -1
end
local function lease_of(key)
    return key .. ':lease'
end
local function is_newer(value, key, may_create)
    local there = redis.pcall('GETRANGE', key, 0, 26)
    if there == '' then
        return may_create
    end
    return version_of(there) < struct.unpack('>I8', value, 2)
end
"""
# ARGV: when the values were recorded (0: absent keys stay absent), least milliseconds to live, how many more at most, a
# number, then one value for each key
PUT = f"""{_COMMON}
local may_create = ARGV[1] ~= '0' and ARGV[1] > (redis.call('HGET', KEYS[1], 'passed') or '')
local least, spread, seed = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local put, leases = 0, {{}}
for i = 2, #KEYS do
    local value = ARGV[i + 3]
    if is_newer(value, KEYS[i], may_create) then
        redis.call('SET', KEYS[i], value, 'PX', least + (seed + i * 7919) % spread)
        put = put + 1
    end
    leases[i - 1] = lease_of(KEYS[i])
end
redis.call('DEL', unpack(leases))
return put
"""
# ARGV: one version for each key. Gives which of the keys, counted from 0, hold an older one. Ends their leases, as a
# put does: a reader that has not filled in yet may have read what this version replaced.
OLDER = f"""{_COMMON}
local older, leases = {{}}, {{}}
for i = 2, #KEYS do
    if is_newer('\\0' .. ARGV[i - 1], KEYS[i], false) then
        older[#older + 1] = i - 2
    end
    leases[i - 1] = lease_of(KEYS[i])
end
redis.call('DEL', unpack(leases))
return older
"""
# ARGV: the token of new leases, milliseconds that they last. Gives 1 for each key whose lease was free, else 0.
TAKE_LEASES = f"""{_COMMON}
local taken = {{}}
for i = 2, #KEYS do
    taken[i - 1] = redis.call('SET', lease_of(KEYS[i]), ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
end
return taken
"""
# ARGV: least milliseconds to live, how many more at most, a number, then a token and a value for each key
FILL = f"""{_COMMON}
if redis.call('HEXISTS', KEYS[1], 'dropping') == 1 then
    return 0
end
local least, spread, seed, put = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 0
for i = 2, #KEYS do
    local lease, token, value = lease_of(KEYS[i]), ARGV[2 * i], ARGV[2 * i + 1]
    if redis.pcall('GET', lease) == token then
        redis.call('DEL', lease)
        if is_newer(value, KEYS[i], true) then
            redis.call('SET', KEYS[i], value, 'PX', least + (seed + i * 7919) % spread)
            put = put + 1
        end
    end
end
return put
"""

# ARGV: a moment in microseconds since 1970
SAY_DELIVERING = """
if (redis.call('HGET', KEYS[1], 'passed') or '') < ARGV[1] then
    redis.call('HSET', KEYS[1], 'passed', ARGV[1])
end
return 1
"""

# A membership is one hash: field v is the version, k is 1 where the members are known, and each member is a field
# of its 16 bytes. One key expires, is evicted and is read as a whole. Members come in several calls, so that none of
# them holds up Redis; they are known once as many are there as there should be. As a version has one set of members,
# calls of several processes add up, and what was lost in between is missed by the count.
# ARGV: version, milliseconds to live, how many members there are or -1 for a mere lower bound, some of the members
PUT_MEMBERS = """
local version, count = tonumber(ARGV[1]), tonumber(ARGV[3])
local there = redis.pcall('HMGET', KEYS[1], 'v', 'k')
local known = tonumber(there[1] or '')
if known and (known > version or (known == version and (there[2] == '1' or count < 0))) then
    return 0
end
if known ~= version then
    redis.call('UNLINK', KEYS[1])
    redis.call('HSET', KEYS[1], 'v', ARGV[1], 'k', '0')
end
for i = 4, #ARGV do
    redis.call('HSET', KEYS[1], ARGV[i], '')
end
if redis.call('HLEN', KEYS[1]) == count + 2 then
    redis.call('HSET', KEYS[1], 'k', '1')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
