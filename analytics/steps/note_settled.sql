-- Windows that have settled, and of which it is not written down yet what they came to.
SELECT team_id, window_start, nd, builder_weeks, CAST($at AS TIMESTAMP) AS seen_at
FROM normalized_deployments ANTI JOIN settled_windows USING (team_id, window_start)
WHERE state = 'settled' AND team_id <> '(other)'
ORDER BY window_start, team_id
