-- Tasks that worked on a ticket, with the ticket's share of what they cost. One row per task and team.
SELECT
  task_id, team_id, count(DISTINCT call_id) AS calls,
  count(DISTINCT call_id) FILTER (WHERE ticket_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(ticket_cost_usd), 0) AS list_cost_usd, min(started_at) AS first_call_at, max(started_at) AS last_call_at
FROM call_tickets
WHERE ticket_id IN (SELECT name FROM ticket_names WHERE ticket_id = $ticket UNION ALL SELECT $ticket)
GROUP BY task_id, team_id
ORDER BY first_call_at, task_id
