-- How much of our input is read from caches, by client and model?
SELECT
  client, coalesce(response_model, request_model) AS model, count(*) AS calls,
  round(100.0 * sum(cache_read_input_tokens) / nullif(sum(input_tokens), 0), 1) AS cache_read_percent,
  sum(list_cost_usd) AS list_cost_usd, count(*) - count(list_cost_usd) AS unpriced_calls
FROM calls
GROUP BY ALL
ORDER BY list_cost_usd DESC NULLS LAST
LIMIT 50
