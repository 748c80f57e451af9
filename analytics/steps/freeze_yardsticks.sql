-- Yardsticks of a quarter that is not written down yet, from the units of the quarter before; work_units goes by the
-- same until they are.
WITH counted AS (
  SELECT unit_id, lines, repos
  FROM work_units
  WHERE date_trunc('quarter', unit_at) + INTERVAL 3 MONTH = $quarter AND lines > 0 AND independence > 0
    AND NOT EXISTS (FROM size_yardsticks WHERE quarter = $quarter)
),
sizes AS (
  SELECT NULL AS repo, lines FROM counted
  UNION ALL
  SELECT part.repo, part.lines FROM (SELECT unnest(repos) AS part FROM counted) WHERE part.lines > 0
)
SELECT $quarter AS quarter, repo, median(lines) AS median_lines, count(*) AS units, $at AS frozen_at
FROM sizes
GROUP BY repo
ORDER BY repo NULLS FIRST
