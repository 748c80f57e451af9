-- Calls of the span that late evidence may change: those without a ticket, and those whose ticket was not known then or
-- is called otherwise now. The steps that follow change them here; was_* stays what counts until then.
CREATE OR REPLACE TEMP TABLE looked AS
WITH moved AS MATERIALIZED (
  SELECT name FROM ticket_names WHERE name <> ticket_id
)
SELECT
  call_id, started_at, coalesce(key_id, '') AS key, repo, branch, commit_sha, list_cost_usd,
  CASE WHEN task_source <> 'none' THEN task_id END AS task_id, -- else it is a guess
  CASE WHEN task_source NOT IN ('header', 'path') THEN session_id END AS session_id, -- else the task was named to us
  true AS in_span, CAST(NULL AS VARCHAR) AS rule,
  tickets, ticket_source AS source, ticket_state AS state, ticket_candidates AS candidates,
  tickets AS was_tickets, ticket_source AS was_source, ticket_state AS was_state,
  ticket_candidates AS was_candidates
FROM span_calls
WHERE started_at >= getvariable('first') AND started_at <= getvariable('last') AND (
  CASE WHEN len(tickets) = 0
    THEN coalesce(task_id, session_id, branch, commit_sha, ticket_candidates[1]) IS NOT NULL
    ELSE coalesce(ticket_state, 'unchecked') IN ('unchecked', 'unknown')
  END
  OR ticket_id IN (FROM moved)
  OR len(tickets) > 1 AND list_has_any(tickets, (SELECT coalesce(list(name), []) FROM moved))
)
