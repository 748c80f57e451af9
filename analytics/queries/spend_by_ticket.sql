-- Spend by ticket; a call for several is split equally between them. The row without a ticket is all other spend.
SELECT
  ticket_id,
  count(DISTINCT task_id) AS tasks,
  count(DISTINCT call_id) AS calls,
  count(DISTINCT call_id) FILTER (WHERE ticket_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(ticket_cost_usd), 0) AS list_cost_usd
FROM (
  SELECT ticket_id, task_id, call_id, team_id, started_at, ticket_cost_usd FROM call_tickets
  UNION ALL
  SELECT NULL, task_id, call_id, team_id, started_at, list_cost_usd FROM calls WHERE len(tickets) = 0
)
WHERE started_at >= CAST($from AS TIMESTAMP) AND started_at < CAST($to AS TIMESTAMP)
  AND ($team IS NULL OR team_id = $team)
GROUP BY ALL
ORDER BY list_cost_usd DESC, ticket_id
