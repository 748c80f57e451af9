-- What arrived, against the team's own past; beside it what makes it less.
SELECT
  team_id, window_start, state, units, pending_units, round(nd, 1) AS nd, round(nd_low, 1) AS nd_low,
  round(nd_high, 1) AS nd_high, round(nd_per_builder_week, 2) AS nd_per_builder_week, round(builders, 1) AS builders, authors,
  round(ndi, 2) AS ndi, reading,
  round(failed_share, 3) AS failed_share, round(rework_share, 3) AS rework_share, round(restated_nd, 1) AS restated_nd
FROM scorecard
WHERE window_start >= $from AND window_start < $to AND ($team IS NULL OR team_id = $team)
ORDER BY team_id NULLS LAST, window_start
