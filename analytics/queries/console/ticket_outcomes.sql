-- Spend on tickets in a span of days, by what became of them. One row per outcome; NULL where the tracker was not read.
SELECT
  outcome, count(DISTINCT ticket_id) AS tickets, CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls, sum(list_cost_usd) AS list_cost_usd,
  round(100 * sum(list_cost_usd) / nullif(sum(sum(list_cost_usd)) OVER (), 0), 1) AS percent
FROM task_days
WHERE ticket_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
  AND ($team IS NULL OR team_id = $team)
GROUP BY outcome
ORDER BY list_cost_usd DESC, outcome
