-- How long delivered work took, by type of ticket.
SELECT team_id, window_start, type, units, lead_hours_p50, lead_hours_p75, open_hours_p50, open_hours_p75
FROM scorecard_flow
WHERE window_start >= $from AND window_start < $to AND ($team IS NULL OR team_id = $team)
ORDER BY team_id, window_start, type NULLS LAST
