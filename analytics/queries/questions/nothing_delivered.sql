-- Which tickets cost most last month and delivered nothing?
SELECT ticket_id, any_value(outcome) AS outcome, sum(list_cost_usd) AS list_cost_usd, sum(unpriced_calls) AS unpriced_calls
FROM task_days
WHERE day >= date_trunc('month', current_date) - INTERVAL 1 MONTH AND day < date_trunc('month', current_date)
  AND outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')
GROUP BY ticket_id
ORDER BY list_cost_usd DESC
LIMIT 50
