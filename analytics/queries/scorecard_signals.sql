-- Signs that something may be gamed: to be looked at, no verdicts.
SELECT team_id, window_start, signal, cases, round(value, 2) AS value, usd, evidence
FROM gaming_signals
WHERE window_start >= $from AND window_start < $to AND ($team IS NULL OR team_id = $team)
ORDER BY team_id, window_start, signal
