-- Spend over time, by day or month (UTC) and one dimension. One row per slot and value.
SELECT
  CAST(date_trunc($unit, started_at) AS DATE) AS slot,
  coalesce(CASE $by
    WHEN 'team' THEN team_id WHEN 'model' THEN coalesce(response_model, request_model) WHEN 'purpose' THEN purpose
    WHEN 'client' THEN client WHEN 'provider' THEN provider WHEN 'repo' THEN repo
    ELSE 'spend'
  END, '(none)') AS series,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
GROUP BY ALL
ORDER BY slot, series
