-- What models cost by normalized deployment, between two bounds; beside them what widens them.
SELECT
  team_id, window_start, state, cts_ai_low_usd, cts_ai_high_usd, spend_usd, waste_usd, unattributed_usd, disputed_usd,
  overhead_usd, round(coverage, 3) AS coverage,
  round(call_coverage, 3) AS call_coverage, round(overhead_share, 3) AS overhead_share, unpriced_calls
FROM scorecard
WHERE window_start >= $from AND window_start < $to AND ($team IS NULL OR team_id = $team)
ORDER BY team_id NULLS LAST, window_start
