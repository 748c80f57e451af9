-- Waste by ticket: what rules claim, each dollar once.
WITH parts AS (
  SELECT call_id, rule, team_id, model, unnest(parts, max_depth := 2)
  FROM waste_claimed
  WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
)
SELECT
  parts.ticket_id AS ticket_id,
  count(DISTINCT finding_id) AS findings,
  count(DISTINCT call_id) AS calls,
  sum(parts.claimed_usd) AS claimed_usd,
  string_agg(DISTINCT parts.rule, ' ' ORDER BY parts.rule) AS rules
FROM parts JOIN waste_findings AS findings USING (finding_id)
WHERE list_contains($states, state)
GROUP BY parts.ticket_id
ORDER BY claimed_usd DESC, ticket_id
