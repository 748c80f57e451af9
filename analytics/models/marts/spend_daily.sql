-- Spend by day, team, model and purpose. One row per combination.
-- @day: UTC day on which the calls started
-- @model: Model that answered, else the one asked for
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are not in list_cost_usd
-- @input_tokens: Input tokens as billed, cache reads and writes included
-- @output_tokens: Output tokens as billed, reasoning included
-- @list_cost_usd: Sum of the priced calls at list price, USD
-- @contracted_cost_usd: Sum of the priced calls after discounts, USD
SELECT
  CAST(started_at AS DATE) AS day,
  team_id,
  coalesce(response_model, request_model) AS model,
  purpose,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
  CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
  coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd
FROM calls
GROUP BY ALL
