-- Findings, those that claim most first.
SELECT
  finding_id, rule, title, kind, state, reason, team_id, ticket_id, models, calls, unpriced_calls, first_call_at,
  last_call_at, recoverable_usd, low_usd, high_usd, claimed_usd, also_in, sentence, precision, as_of
FROM waste_findings
WHERE list_contains($states, state) AND ($rule IS NULL OR rule = $rule) AND ($team IS NULL OR team_id = $team)
  AND ($ticket IS NULL OR ticket_id = $ticket)
ORDER BY claimed_usd DESC, recoverable_usd DESC, finding_id
LIMIT $most
