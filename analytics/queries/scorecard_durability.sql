-- How long delivered work lasted; beside it what nobody has looked at, or cannot be told yet.
SELECT
  team_id, window_start, state, units, round(survival_14, 3) AS survival_14, round(survival_30, 3) AS survival_30,
  round(unreviewed_share, 3) AS unreviewed_share, round(pending_share, 3) AS pending_share, median_lines, is_frozen
FROM scorecard
WHERE window_start >= $from AND window_start < $to AND ($team IS NULL OR team_id = $team) AND state IS NOT NULL
ORDER BY team_id, window_start
