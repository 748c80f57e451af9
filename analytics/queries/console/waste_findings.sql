-- Findings of waste with calls in a span of days, those that claim most first. One row per finding.
SELECT
  finding_id, rule, title, state, team_id, ticket_id, claimed_usd, recoverable_usd, calls, unpriced_calls, sentence,
  last_call_at
FROM waste_findings
WHERE last_call_at >= $from AND first_call_at < $to AND list_contains($states, state)
  AND ($team IS NULL OR list_contains(teams, $team)) AND ($rule IS NULL OR rule = $rule)
ORDER BY claimed_usd DESC, recoverable_usd DESC, finding_id
