-- What a budget has spent by day (UTC) of its present period. One row per day with calls.
SELECT
  CAST(started_at AS DATE) AS day, coalesce(sum(charged_usd), 0) AS spent_usd,
  count(*) FILTER (WHERE charged_usd IS NULL) AS unpriced_calls, count(*) AS calls
FROM budget_charges
WHERE name = $name
GROUP BY ALL
ORDER BY day
