-- Number of calls that started in a span of time.
SELECT count(*) AS calls
FROM booked_calls
WHERE started_at >= $from AND started_at <= $to AND recorded_at < $as_of
