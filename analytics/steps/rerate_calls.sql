-- Calls that started in a span of time, as the latest correction states them, with the fields of their records.
-- Not from `calls`: filtered this early, neither all corrections nor all calls have to be held. A correction counts
-- whatever its time: what overrules it must be later still (corrected_us).
WITH restated AS MATERIALIZED (
  FROM restated_calls
  WHERE started_at >= $from AND started_at <= $to
)
SELECT
  COLUMNS(lambda name: NOT suffix(name, '_usd') AND NOT suffix(name, '_at') AND name NOT IN ('correction', 'segment', 'day')),
  epoch_us(started_at) AS started_us,
  epoch_us(recorded_at) AS booked_us,
  epoch_us(corrected_at) AS corrected_us,
  CAST(CAST(COLUMNS('(.*)_usd') AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS '\1_nano'
FROM (
  SELECT *, NULL AS correction, NULL AS corrected_at
  FROM booked_calls ANTI JOIN restated USING (call_id)
  WHERE started_at >= $from AND started_at <= $to
  UNION ALL BY NAME
  FROM restated
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY corrected_at DESC, segment DESC) = 1
)
WHERE recorded_at < $as_of
