-- What the same quarter was: delivered work, cost and waste of teams, by name.
SELECT
  team_id, CAST(sum(units) AS BIGINT) AS units, round(sum(nd), 1) AS nd, sum(spend_usd) AS spend_usd,
  sum(waste_usd) AS waste_usd,
  CAST((sum(spend_usd) - sum(overhead_usd)) / sum(nd) AS DECIMAL(18,2)) AS high_usd_per_nd
FROM scorecard
WHERE window_start >= $from AND window_start < $to AND state IS NOT NULL
GROUP BY team_id
ORDER BY team_id
