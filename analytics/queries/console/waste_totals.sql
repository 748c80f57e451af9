-- What findings of waste claim together, each dollar once, and how many are to be looked at.
SELECT
  coalesce((
    SELECT sum(part.claimed_usd)
    FROM (
      SELECT unnest(parts) AS part
      FROM waste_claimed
      WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
    ) SEMI JOIN (FROM waste_findings WHERE list_contains($states, state)) AS findings
      ON findings.finding_id = part.finding_id
  ), 0) AS claimed_usd,
  count(*) AS findings,
  count(*) FILTER (WHERE state IN ('new', 'regressed')) AS to_review,
  CAST(coalesce(sum(unpriced_calls), 0) AS BIGINT) AS unpriced_calls
FROM waste_findings
WHERE list_contains($states, state) AND last_call_at >= $from AND first_call_at < $to
  AND ($team IS NULL OR list_contains(teams, $team))
