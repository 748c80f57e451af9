-- All that is recorded of a call, but who made it. At most one row.
SELECT * EXCLUDE (user_id) FROM calls WHERE call_id = $call
