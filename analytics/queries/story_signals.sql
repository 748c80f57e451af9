-- Signs of gaming of one team.
SELECT CAST(window_start AS DATE) AS window_start, signal, evidence
FROM gaming_signals
WHERE team_id = $team AND window_start >= $from AND window_start < $to
ORDER BY window_start, signal
