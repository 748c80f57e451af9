-- Spend on tickets in a span of days, by what the variable dimension names. lost_cost_usd is what was spent on those that delivered nothing. Teams are sorted by name: nobody is ranked; months are in their order.
SELECT
  COLUMNS([getvariable('dimension')]), tickets, delivered_tickets, list_cost_usd, lost_cost_usd, contracted_cost_usd,
  round(100 * list_cost_usd / nullif(sum(list_cost_usd) OVER (), 0), 1) AS percent,
  calls, unpriced_calls
FROM (
  SELECT
    COLUMNS([getvariable('dimension')]),
    CASE getvariable('dimension') WHEN 'team' THEN any_value(team) WHEN 'month' THEN any_value(month) END AS by_name,
    count(DISTINCT ticket_id) AS tickets,
    count(DISTINCT ticket_id) FILTER (WHERE outcome = 'delivered') AS delivered_tickets,
    sum(list_cost_usd) AS list_cost_usd,
    coalesce(sum(list_cost_usd) FILTER (WHERE outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')), 0)
      AS lost_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls
  FROM (SELECT *, team_id AS team, strftime(day, '%Y-%m') AS month FROM task_days)
  WHERE ticket_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
    AND ($team IS NULL OR team_id = $team)
  GROUP BY ALL
)
ORDER BY
  by_name, CASE $sort WHEN 'lost' THEN lost_cost_usd WHEN 'calls' THEN calls ELSE list_cost_usd END DESC, list_cost_usd DESC, 1
LIMIT $limit
