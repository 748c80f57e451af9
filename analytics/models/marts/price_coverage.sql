-- How much of the usage has a price, and how well founded both are. One row per provider, model, price status and usage source.
-- @model: Model that answered, else the one asked for
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are not in list_cost_usd
-- @input_tokens: Input tokens as billed, cache reads and writes included
-- @output_tokens: Output tokens as billed, reasoning included
-- @list_cost_usd: Sum of the priced calls at list price, USD
-- @provider_cost_usd: Sum of what the provider itself reported, USD; NULL where it did not
SELECT
  provider,
  coalesce(response_model, request_model) AS model,
  price_status,
  usage_source,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
  CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
  sum(provider_cost_usd) AS provider_cost_usd
FROM calls
GROUP BY ALL
