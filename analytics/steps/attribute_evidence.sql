-- Calls with evidence of their own in the tasks of those without a ticket.
INSERT INTO looked BY NAME
WITH wanting AS MATERIALIZED (
  SELECT DISTINCT kind, key, id FROM links WHERE len(tickets) = 0 OR source = 'task'
)
SELECT
  call_id, started_at, coalesce(key_id, '') AS key, repo, branch, commit_sha, list_cost_usd,
  CASE WHEN task_source <> 'none' THEN task_id END AS task_id, -- else it is a guess
  CASE WHEN task_source NOT IN ('header', 'path') THEN session_id END AS session_id, -- else the task was named to us
  false AS in_span, tickets, ticket_source AS source, ticket_state AS state, ticket_candidates AS candidates,
  tickets AS was_tickets, ticket_source AS was_source, ticket_state AS was_state, ticket_candidates AS was_candidates
FROM span_calls ANTI JOIN looked USING (call_id)
WHERE len(tickets) > 0 AND ticket_source NOT IN ('task', 'none') AND (
  (coalesce(key_id, ''), task_id) IN (SELECT (key, id) FROM wanting WHERE kind = 'task')
  OR (coalesce(key_id, ''), session_id) IN (SELECT (key, id) FROM wanting WHERE kind = 'session')
)
