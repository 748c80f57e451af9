-- Units of work by the teams that wrote them, by lines. One row per unit and team.
-- @team_id: Team; NULL where authors are not known as users
-- @part: The team's part of the unit, by lines
-- @normalized_deployments: The team's part of what the unit counts
-- @is_main: Whether the team wrote most of it: the unit is counted there
WITH lines AS (
  SELECT unit_id, team_id, sum(lines) AS team_lines FROM unit_prs GROUP BY unit_id, team_id
)
SELECT
  unit_id, lines.team_id, unit_at, state,
  CASE WHEN work_units.lines > 0 THEN coalesce(team_lines, 0) / work_units.lines
    ELSE CAST(lines.team_id IS NOT DISTINCT FROM work_units.team_id AS INTEGER) END AS part,
  normalized_deployments * part AS normalized_deployments,
  lines.team_id IS NOT DISTINCT FROM work_units.team_id AS is_main
FROM lines JOIN work_units USING (unit_id)
