-- Moments of the first and the last call of a span.
SELECT min(started_at), max(started_at) FROM booked_calls WHERE started_at >= $first AND started_at <= $last
