-- What was exported, in one row.
SELECT
  count(*), CAST(coalesce(sum("BilledCost"), 0.000000000) AS VARCHAR),
  (
    SELECT count(DISTINCT call_id) FROM focus_versions
    WHERE price_status = 'unpriced' AND result IS DISTINCT FROM 'refused'
      AND CAST(started_at AS DATE) BETWEEN getvariable('period')[1] AND getvariable('period')[2]
  ),
  count("ChargeClass")
FROM exported
