-- Calls of the span that late evidence may change: those without a ticket, and those whose ticket was not known then or
-- is called otherwise now. The steps that follow change them here; was_* stays what counts until then.
CREATE OR REPLACE TEMP TABLE looked AS
WITH moved AS MATERIALIZED (
  SELECT name FROM ticket_names WHERE name <> ticket_id
)
SELECT *, true AS in_span, CAST(NULL AS VARCHAR) AS rule
FROM span_calls
WHERE started_at >= getvariable('first') AND started_at <= getvariable('last') AND (
  CASE WHEN len(tickets) = 0
    THEN coalesce(task_id, session_id, branch, commit_sha, candidates[1]) IS NOT NULL
    ELSE coalesce(state, 'unchecked') IN ('unchecked', 'unknown')
  END
  OR tickets[1] IN (FROM moved)
  OR len(tickets) > 1 AND list_has_any(tickets, (SELECT coalesce(list(name), []) FROM moved))
)
