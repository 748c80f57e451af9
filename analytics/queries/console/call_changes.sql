-- What late evidence changed of a call's ticket. One row per change.
SELECT
  corrected_at, rule, tickets_before, ticket_source_before, ticket_state_before, tickets_after, ticket_source_after,
  ticket_state_after
FROM attribution_changes
WHERE call_id = $call
ORDER BY corrected_at
