-- Spend on tickets by what the variable by names. lost_cost_usd is what was spent on those that delivered nothing.
SELECT
  COLUMNS([getvariable('by')]),
  count(DISTINCT ticket_id) AS tickets,
  count(DISTINCT ticket_id) FILTER (WHERE outcome = 'delivered') AS delivered_tickets,
  sum(list_cost_usd) AS list_cost_usd,
  coalesce(sum(list_cost_usd) FILTER (WHERE outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')), 0)
    AS lost_cost_usd,
  sum(contracted_cost_usd) AS contracted_cost_usd,
  round(100 * sum(list_cost_usd) / nullif(sum(sum(list_cost_usd)) OVER (), 0), 1) AS percent,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls
FROM (SELECT *, team_id AS team, strftime(day, '%Y-%m') AS month FROM task_days)
WHERE ticket_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
  AND ($team IS NULL OR team_id = $team)
GROUP BY 1
ORDER BY
  CASE $sort WHEN 'lost' THEN lost_cost_usd WHEN 'calls' THEN calls WHEN 'tickets' THEN tickets ELSE list_cost_usd END DESC,
  1
LIMIT $limit
