-- How large units of work are, and when they are from. One row per unit and repository.
-- @unit_id: Unit of work, called after the first of its pull requests
-- @unit_at: Date of the unit, UTC: when half of its lines had arrived
-- @lines: Lines added and removed in this repository
-- @unit_lines: … in all
-- A small change that comes later moves nothing of the past into the present.
WITH parts AS (
  SELECT
    unit_id, repo, arrived_at, coalesce(lines, 0) AS lines,
    sum(coalesce(lines, 0)) OVER (PARTITION BY unit_id ORDER BY arrived_at) AS lines_then,
    sum(coalesce(lines, 0)) OVER (PARTITION BY unit_id) AS unit_lines
  FROM unit_prs
),
dates AS (
  SELECT unit_id, min(arrived_at) AS unit_at FROM parts WHERE 2 * lines_then >= unit_lines GROUP BY unit_id
)
SELECT unit_id, repo, unit_at, CAST(sum(lines) AS BIGINT) AS lines, CAST(any_value(unit_lines) AS BIGINT) AS unit_lines
FROM parts JOIN dates USING (unit_id)
GROUP BY unit_id, repo, unit_at
