-- Spend since a moment, by provider and the two names of the model.
SELECT
  provider,
  response_model,
  request_model,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
WHERE started_at >= $since AND provider IS NOT NULL AND coalesce(response_model, request_model) IS NOT NULL
GROUP BY ALL
ORDER BY ALL
