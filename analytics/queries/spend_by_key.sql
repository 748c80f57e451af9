-- Spend by gateway key. What came of it is not told by key: a key may be a person's.
SELECT
  key_id,
  team_id,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
  CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
WHERE started_at >= CAST($from AS TIMESTAMP) AND started_at < CAST($to AS TIMESTAMP)
  AND ($team IS NULL OR team_id = $team)
GROUP BY ALL
ORDER BY key_id NULLS LAST, team_id
