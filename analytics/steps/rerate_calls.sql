-- Calls that started in a span of time, as the latest correction states them, with the fields of their records.
SELECT
  COLUMNS(lambda name: NOT suffix(name, '_usd') AND name NOT IN ('started_at', 'recorded_at', 'segment', 'day')),
  epoch_us(started_at) AS started_us,
  epoch_us(recorded_at) AS booked_us,
  CAST(CAST(COLUMNS('(.*)_usd') AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS '\1_nano'
FROM calls
WHERE started_at >= $from AND started_at < $to AND recorded_at < $as_of
