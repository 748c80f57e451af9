-- The calls that change, as the latest correction states them, with the fields of their records.
WITH restated AS MATERIALIZED (
  FROM restated_calls SEMI JOIN changes USING (call_id)
  WHERE day >= CAST(getvariable('first') - INTERVAL 48 HOUR AS DATE)
    AND started_at >= getvariable('first') AND started_at <= getvariable('last')
)
SELECT
  COLUMNS(lambda name: NOT suffix(name, '_usd') AND NOT suffix(name, '_at') AND name NOT IN ('correction', 'segment', 'day')),
  epoch_us(started_at) AS started_us,
  epoch_us(recorded_at) AS booked_us,
  epoch_us(corrected_at) AS corrected_us,
  CAST(CAST(COLUMNS('(.*)_usd') AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS '\1_nano'
FROM (
  SELECT *, NULL AS correction, NULL AS corrected_at
  FROM booked_calls SEMI JOIN changes USING (call_id) ANTI JOIN restated USING (call_id)
  WHERE day >= CAST(getvariable('first') - INTERVAL 48 HOUR AS DATE)
    AND started_at >= getvariable('first') AND started_at <= getvariable('last')
  UNION ALL BY NAME
  FROM restated
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY corrected_at DESC, segment DESC) = 1
) JOIN (SELECT call_id, COLUMNS('(now|was)_.*') FROM changes) USING (call_id)
