-- SPDX-License-Identifier: Apache-2.0
-- What wrk sends, by the environment: GET of its URL; or POST to LOAD_PATH of the lines of LOAD_BODIES in turn, or of the
-- file LOAD_BODY, whose first LOAD_HEAD bytes are JSON if there are tensors in binary behind them; or, with
-- LOAD_ROWS (a CSV file of origin, destination, distance, delay), pushes of LOAD_BATCH new flights each, which land one
-- after the other from LOAD_FROM (microseconds) on, LOAD_EVERY apart, numbered from LOAD_FIRST. Ends with a line of JSON.
local env = os.getenv
local bodies, rows = {}, {}
local at, batch, number, from, every
local headers = {}

-- One body for all: wrk makes the request once and asks Lua no more.
local function body_read(path)
    local file = assert(io.open(path, "rb"))
    wrk.method, wrk.body = "POST", file:read("*a")
    file:close()
    for name, value in pairs(headers) do wrk.headers[name] = value end
end

local function rows_read(path)
    for line in io.lines(path) do
        local o, d, distance, delay = line:match("^(%u+),(%u+),(%d+),(-?%d+)")
        if o then rows[#rows + 1] = { o, d, tonumber(distance), tonumber(delay) } end
    end
    batch, number = tonumber(env("LOAD_BATCH")), tonumber(env("LOAD_FIRST"))
    from, every = tonumber(env("LOAD_FROM")), tonumber(env("LOAD_EVERY"))
end

function init(args)
    if env("LOAD_TOKEN") then headers["Authorization"] = "Bearer " .. env("LOAD_TOKEN") end
    headers["Content-Type"] = env("LOAD_HEAD") and "application/octet-stream" or "application/json"
    headers["Inference-Header-Content-Length"] = env("LOAD_HEAD")
    at = 0
    if env("LOAD_ROWS") then
        rows_read(env("LOAD_ROWS"))
    elseif env("LOAD_BODY") then
        body_read(env("LOAD_BODY"))
    elseif env("LOAD_BODIES") then
        for line in io.lines(env("LOAD_BODIES")) do
            bodies[#bodies + 1] = wrk.format("POST", env("LOAD_PATH"), headers, line)
        end
    end
end

local function push()
    local c = { id = {}, date = {}, ts = {}, known_at = {}, origin = {}, destination = {}, distance = {}, delay = {},
        late = {} }
    for i = 1, batch do
        local r = rows[number % #rows + 1]
        local known = from + number * every
        local left = known - math.floor((40 + r[3] / 7.8) * 60000000)
        c.id[i] = string.format("%d", 1e9 + number)
        c.ts[i], c.known_at[i] = string.format("%.0f", left), string.format("%.0f", known)
        c.date[i] = c.ts[i]
        c.origin[i], c.destination[i] = '"' .. r[1] .. '"', '"' .. r[2] .. '"'
        c.distance[i], c.delay[i], c.late[i] = r[3], r[4], r[4] > 15 and 1 or 0
        number = number + 1
    end
    local parts = {}
    for name, values in pairs(c) do parts[#parts + 1] = '"' .. name .. '":[' .. table.concat(values, ",") .. "]" end
    return wrk.format("POST", env("LOAD_PATH"), headers, '{"rows":{' .. table.concat(parts, ",") .. "}}")
end

local function next_body()
    at = at % #bodies + 1
    return bodies[at]
end

-- Without such a function wrk sends its one GET and does not ask Lua.
if env("LOAD_ROWS") then request = push elseif env("LOAD_BODIES") then request = next_body end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('{"requests":%d,"us":%d,"p50":%d,"p99":%d,"errors":%d}\n', summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
