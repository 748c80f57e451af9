-- What late evidence changed: why calls have another ticket than when they were answered. One row per correction of a call's attribution.
-- @corrected_at: When it was corrected, UTC
-- @rule: What was known: task (the ticket of another call of its task), name (the branch names one that is known by now), branch, commit (the tickets of its pull request), candidate (what may have been meant became known), moved (the ticket has another key, or was a pull request), state (only that changed), taken_back (its branch named no ticket of a known project)
-- @tickets_before: Tickets before the correction
-- @tickets_after: Tickets since the correction
-- @ticket_source_before: How the ticket was known before the correction
-- @ticket_source_after: How the ticket is known since the correction
-- @ticket_state_before: What was known of the ticket before the correction
-- @ticket_state_after: What is known of the ticket since the correction
-- The rule is told from before and after.
WITH restated AS MATERIALIZED (
  FROM restated_calls
),
steps AS (
  SELECT *, NULL AS correction, NULL AS corrected_at FROM booked_calls SEMI JOIN restated USING (call_id)
  UNION ALL BY NAME
  FROM restated
),
changes AS (
  SELECT
    call_id, started_at, recorded_at, corrected_at, team_id, client, branch, list_cost_usd,
    lag(tickets) OVER steps AS tickets_before, tickets AS tickets_after,
    lag(ticket_source) OVER steps AS ticket_source_before, ticket_source AS ticket_source_after,
    lag(ticket_state) OVER steps AS ticket_state_before, ticket_state AS ticket_state_after,
    len(ticket_candidates) - len(lag(ticket_candidates) OVER steps) AS more_candidates
  FROM steps
  WINDOW steps AS (PARTITION BY call_id ORDER BY corrected_at NULLS FIRST, segment)
  QUALIFY correction = 'attribution'
)
SELECT
  call_id, started_at, recorded_at, corrected_at, team_id, client,
  CASE
    WHEN len(tickets_after) = 0 THEN 'taken_back'
    WHEN len(tickets_before) > 0 AND ticket_source_before = ticket_source_after THEN CASE
      WHEN more_candidates > 0 THEN 'taken_back' WHEN tickets_before <> tickets_after THEN 'moved' ELSE 'state' END
    WHEN ticket_source_after = 'task' THEN 'task'
    WHEN ticket_source_after <> 'branch' THEN 'candidate'
    WHEN branch IS NULL THEN 'commit'
    WHEN contains(upper(branch), tickets_after[1]) THEN 'name'
    ELSE 'branch'
  END AS rule,
  tickets_before, tickets_after, ticket_source_before, ticket_source_after, ticket_state_before, ticket_state_after,
  list_cost_usd
FROM changes
