-- wrk's side of a run: connects to ADDRESS and PORT whatever the URL's host resolves to, sends AUTHORIZATION, and prints one JSON object.
-- Source: wrk 4.1, SCRIPTING and src/wrk.lua.

function wrk.resolve(host, service)
   wrk.addrs = wrk.lookup(os.getenv("ADDRESS"), os.getenv("PORT"))
end

wrk.headers["Authorization"] = os.getenv("AUTHORIZATION")
if os.getenv("CLOSE") == "1" then
   wrk.headers["Connection"] = "close"
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format('{"requests": %d, "p50_us": %f, "p99_us": %f, "failed": %d}\n',
      summary.requests, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
