-- What calls count in the budgets that are asked about. One row per budget, account and, of a rolling window, five minutes.
SELECT
  CAST(name AS INTEGER) AS place,
  value,
  CASE period WHEN 'rolling_24h' THEN epoch_us(started_at) // 300000000 * 300000000 END AS bucket_us,
  CAST(CAST(coalesce(sum(charged_usd), 0) AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) AS nano,
  count(*) FILTER (WHERE charged_usd IS NULL) AS unpriced_calls
FROM budget_charges
GROUP BY ALL
HAVING nano <> 0 OR unpriced_calls > 0
ORDER BY place, value, bucket_us
