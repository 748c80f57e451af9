-- Waste by what the variable dimension names: what rules claim, each dollar once.
WITH parts AS (
  SELECT call_id, rule, team_id, model, unnest(parts, max_depth := 2)
  FROM waste_claimed
  WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
)
SELECT
  COLUMNS([getvariable('dimension')]),
  count(DISTINCT finding_id) AS findings,
  count(DISTINCT call_id) AS calls,
  sum(claimed_usd) AS claimed_usd,
  string_agg(DISTINCT rule, ' ' ORDER BY rule) AS rules
FROM parts SEMI JOIN (FROM waste_findings WHERE list_contains($states, state)) USING (finding_id)
GROUP BY ALL
ORDER BY CASE WHEN getvariable('dimension') = 'team_id' THEN any_value(team_id) END, claimed_usd DESC, 1
