-- What was called with gateway keys today and in this calendar month, UTC. One row per asked key.
-- Calls of a month are booked on its first day or later.
WITH asked AS (
  SELECT unnest($ids) AS id
),
totals AS (
  SELECT
    key_id AS id,
    sum(list_cost_usd) FILTER (WHERE started_at >= CAST($today AS TIMESTAMP)) AS today_usd,
    sum(list_cost_usd) AS month_usd,
    count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls
  FROM calls
  WHERE day >= $month AND started_at >= CAST($month AS TIMESTAMP) AND key_id IN (FROM asked)
  GROUP BY key_id
)
SELECT
  id AS key_id,
  coalesce(today_usd, 0.000000000) AS today_usd,
  coalesce(month_usd, 0.000000000) AS month_usd,
  coalesce(unpriced_calls, 0) AS unpriced_calls
FROM asked LEFT JOIN totals USING (id)
