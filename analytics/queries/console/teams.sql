-- Teams whose keys made calls.
SELECT DISTINCT team_id FROM calls WHERE team_id IS NOT NULL ORDER BY team_id
