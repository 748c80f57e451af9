-- Median sizes of units of work, by which those of the next quarter are measured. One row per quarter and repository, and one of the whole organisation.
-- @quarter: First day of the quarter that is measured by it
-- @repo: Repository; NULL for the whole organisation, which is the yardstick of repositories with fewer units than the scorecard needs
-- @median_lines: Median lines of the units in the quarter before; those that count nothing are left out
-- @units: Number of those units
-- @frozen_at: When it was written down, in the first week of the quarter, UTC; NULL where nobody did, and it still follows what becomes known of the quarter before
WITH frozen AS MATERIALIZED (
  FROM read_parquet('lake:scorecard/yardsticks.parquet', hive_partitioning = false)
),
parts AS MATERIALIZED (
  SELECT unit_id, repo, lines, is_reviewed, arrived_at, max(arrived_at) OVER units AS unit_at,
    sum(lines) OVER units AS unit_lines, bool_and(is_reviewed) OVER units AS is_unit_reviewed
  FROM unit_prs
  WINDOW units AS (PARTITION BY unit_id)
),
counted AS (
  SELECT unit_id, repo, any_value(date_trunc('quarter', unit_at)) AS of_quarter, sum(lines) AS lines
  FROM parts JOIN scorecard_terms ON unit_at >= applies_from AND unit_at < applies_to
  WHERE unit_lines > CASE WHEN is_unit_reviewed THEN 0 ELSE tiny_lines END
  GROUP BY unit_id, repo
),
units AS (
  SELECT of_quarter, repo, lines FROM counted
  UNION ALL
  SELECT of_quarter, NULL, sum(lines) FROM counted GROUP BY unit_id, of_quarter
)
FROM frozen
UNION ALL BY NAME
SELECT of_quarter + INTERVAL 3 MONTH AS quarter, repo, median(lines) AS median_lines, count(*) AS units
FROM units
WHERE lines > 0 AND of_quarter + INTERVAL 3 MONTH NOT IN (SELECT quarter FROM frozen)
GROUP BY of_quarter, repo
