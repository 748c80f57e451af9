-- What was spent in a span of days on tickets that delivered nothing.
SELECT
  coalesce(sum(list_cost_usd), 0) AS lost_cost_usd, CAST(coalesce(sum(unpriced_calls), 0) AS BIGINT) AS unpriced_calls
FROM task_days
WHERE ticket_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
  AND outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')
