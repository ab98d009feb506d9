"""An engine without a model: a real server process that speaks vLLM's protocol and can be told to fail.

    python tests/fake_engine --uds PATH --name NAME [flags]

Standard library alone, so that it starts at once. The answer to a prompt is the same every time and names the served
model. A request may carry `"fake": {...}` with `events`, `interval`, `first`, `crash_after`, `error_after`,
`stall_after`, `status`, `context`, `text`, `message`, `deltas`, `finish`, `stop_reason`, `reasoning` or `call` (a name
of a tool) to override the flags for itself; so may a prompt that is `fake:` and such an object, for requests that
somebody has translated on the way. Demanded tools are called, and formats obeyed. `GET /fake/stats` tells what it has
seen.
"""
