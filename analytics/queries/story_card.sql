-- What the same quarter was: delivered work, cost and waste of teams, by name.
WITH delivered AS (
  SELECT team_id, CAST(sum(units) AS BIGINT) AS units, CASE WHEN sum(units) >= any_value(units_min) THEN sum(nd) END AS nd
  FROM normalized_deployments JOIN scorecard_terms ON window_start >= applies_from AND window_start < applies_to
  WHERE window_start >= $from AND window_start < $to
  GROUP BY team_id
),
spent AS (
  SELECT
    team_id, sum(spend_usd) AS spend_usd, sum(waste_usd) AS waste_usd, sum(spend_usd) - sum(overhead_usd) AS high_usd
  FROM scorecard
  WHERE window_start >= $from AND window_start < $to
  GROUP BY team_id
)
SELECT team_id, units, round(nd, 1) AS nd, spend_usd, waste_usd, CAST(high_usd / nd AS DECIMAL(18,2)) AS high_usd_per_nd
FROM delivered JOIN spent USING (team_id)
WHERE units > 0 OR spend_usd > 0
ORDER BY team_id
