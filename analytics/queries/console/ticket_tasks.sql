-- Tasks that worked on a ticket, with the ticket's share of what they cost. One row per task and team.
SELECT
  task_id, team_id, count(*) AS calls, count(*) - count(list_cost_usd) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd, min(started_at) AS first_call_at, max(started_at) AS last_call_at
FROM ticket_parts
GROUP BY task_id, team_id
ORDER BY first_call_at, task_id
