-- What do a million tokens cost us, by model, caches and all?
SELECT
  model, sum(calls) AS calls, sum(unpriced_calls) AS unpriced_calls, sum(list_cost_usd) AS list_cost_usd,
  CAST(1e6 * sum(list_cost_usd) / nullif(sum(input_tokens) + sum(output_tokens), 0) AS DECIMAL(18,6)) AS per_million_usd
FROM spend_daily
GROUP BY model
ORDER BY list_cost_usd DESC
