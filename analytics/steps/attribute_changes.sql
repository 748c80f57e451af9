-- What changes.
CREATE OR REPLACE TEMP TABLE changes AS
SELECT
  call_id, started_at, list_cost_usd,
  coalesce(rule, 'state') AS rule,
  tickets AS now_tickets, source AS now_source, CASE WHEN len(tickets) > 0 THEN state END AS now_state,
  candidates AS now_candidates, was_tickets, was_source, was_state, was_candidates
FROM looked
WHERE in_span AND (now_tickets, now_source, now_state, now_candidates)
  IS DISTINCT FROM (was_tickets, was_source, was_state, was_candidates)
