-- Calls of a span of time, and of a day before and after it, as the latest correction states them.
-- As in rerate_calls, filtered early. A call is kept on the day on which it was recorded, or on a later one.
CREATE OR REPLACE TEMP VIEW span_calls AS
WITH restated AS MATERIALIZED (
  FROM restated_calls
  WHERE day >= CAST(getvariable('first') - INTERVAL 48 HOUR AS DATE)
    AND started_at >= getvariable('first') - INTERVAL 24 HOUR AND started_at <= getvariable('last') + INTERVAL 24 HOUR
)
FROM (
  SELECT *, NULL AS correction, NULL AS corrected_at
  FROM booked_calls ANTI JOIN restated USING (call_id)
  WHERE day >= CAST(getvariable('first') - INTERVAL 48 HOUR AS DATE)
    AND started_at >= getvariable('first') - INTERVAL 24 HOUR AND started_at <= getvariable('last') + INTERVAL 24 HOUR
  UNION ALL BY NAME
  FROM restated
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY corrected_at DESC, segment DESC) = 1
)
WHERE recorded_at < getvariable('as_of') AND result IS DISTINCT FROM 'refused'
