-- Waste by rule that found something: what rules claim, each dollar once, and how sure their findings proved to be.
WITH parts AS (
  SELECT call_id, unnest(parts, max_depth := 2)
  FROM waste_claimed
  WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
),
claimed AS (
  SELECT findings.rule, count(DISTINCT call_id) AS calls, sum(parts.claimed_usd) AS claimed_usd
  FROM parts JOIN waste_findings AS findings USING (finding_id)
  WHERE list_contains($states, state)
  GROUP BY findings.rule
),
found AS (
  SELECT
    rule, count(*) AS findings, count(*) FILTER (state IN ('new', 'regressed')) AS to_review,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls
  FROM waste_findings
  WHERE last_call_at >= $from AND first_call_at < $to AND ($team IS NULL OR list_contains(teams, $team))
    AND list_contains($states, state)
  GROUP BY rule
)
SELECT
  rule, title, coalesce(findings, 0) AS findings, coalesce(to_review, 0) AS to_review, coalesce(calls, 0) AS calls,
  coalesce(unpriced_calls, 0) AS unpriced_calls, coalesce(claimed_usd, 0) AS claimed_usd, precision,
  accepted + dismissed AS reviewed
FROM waste_rules LEFT JOIN found USING (rule) LEFT JOIN claimed USING (rule)
WHERE findings IS NOT NULL OR claimed_usd IS NOT NULL
ORDER BY claimed_usd DESC, rule
