-- What late evidence moved, by what became known. A call that was corrected for the same reason twice counts once.
SELECT
  rule,
  count(DISTINCT call_id) AS calls,
  count(*) AS corrections,
  count(DISTINCT call_id) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd) FILTER (WHERE is_last), 0) AS moved_usd
FROM (
  SELECT *, row_number() OVER (PARTITION BY call_id, rule ORDER BY corrected_at DESC) = 1 AS is_last
  FROM attribution_changes
  WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
    AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
    AND ($team IS NULL OR team_id = $team)
)
GROUP BY rule
ORDER BY moved_usd DESC, rule
