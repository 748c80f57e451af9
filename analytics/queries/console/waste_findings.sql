-- Findings of waste with calls in a span of days, those that claim most first; claimed is what they claim in these days, of this team. One row per finding.
WITH claimed AS (
  SELECT part.finding_id AS finding_id, sum(part.claimed_usd) AS claimed_usd
  FROM (
    SELECT unnest(parts) AS part
    FROM waste_claimed
    WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
  )
  GROUP BY part.finding_id
)
SELECT
  finding_id, rule, title, state, team_id, ticket_id, coalesce(claimed.claimed_usd, 0) AS claimed_usd, recoverable_usd,
  calls, unpriced_calls, sentence, last_call_at
FROM waste_findings LEFT JOIN claimed USING (finding_id)
WHERE last_call_at >= $from AND first_call_at < $to AND list_contains($states, state)
  AND ($team IS NULL OR list_contains(teams, $team)) AND ($rule IS NULL OR rule = $rule)
ORDER BY claimed_usd DESC, recoverable_usd DESC, finding_id
