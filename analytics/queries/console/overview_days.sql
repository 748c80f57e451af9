-- Spend over time, by day or month (UTC) and team. One row per slot and team.
SELECT
  CAST(date_trunc($unit, day) AS DATE) AS slot, coalesce(team_id, '(none)') AS series, CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls, sum(list_cost_usd) AS list_cost_usd
FROM overview_calls
WHERE day >= CAST($from AS DATE)
GROUP BY ALL
ORDER BY slot, series
