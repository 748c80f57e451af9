-- Yardsticks that units of work are measured by. One row per quarter and repository, and one of the whole organisation.
-- @quarter: First day of the quarter that is measured by it
-- @repo: Repository; NULL for the whole organisation
-- @median_lines: Median lines of the units in the quarter before, tiny ones left out; at least seven tenths of that of the quarter before it
-- @units: Number of those units
-- @is_frozen: Whether it was written down before it was used
-- Where nobody wrote a quarter's yardsticks down, they follow what becomes known of the quarter before.
WITH counted AS (
  SELECT unit_id, date_trunc('quarter', unit_at) + INTERVAL 3 MONTH AS quarter, repo, lines, unit_lines
  FROM unit_sizes JOIN scorecard_terms ON unit_at >= applies_from AND unit_at < applies_to
  WHERE unit_lines > tiny_lines
),
medians AS (
  SELECT quarter, repo, median_lines, units, true AS is_frozen FROM size_yardsticks
  UNION ALL
  SELECT quarter, repo, median(lines), count(*), false
  FROM (
    SELECT quarter, repo, lines FROM counted WHERE lines > 0
    UNION ALL
    SELECT DISTINCT ON (unit_id) quarter, NULL, unit_lines FROM counted
  ) ANTI JOIN size_yardsticks USING (quarter)
  GROUP BY quarter, repo
)
SELECT
  quarter, repo,
  CASE WHEN is_frozen THEN median_lines ELSE greatest(median_lines, 0.7 * coalesce(lag(median_lines) OVER earlier, 0)) END
    AS median_lines,
  units, is_frozen
FROM medians
WINDOW earlier AS (PARTITION BY repo ORDER BY quarter)
