-- What tokens cost, by the prices that calls paid. One row per price_id, provider and model.
-- @input_rate: An uncached input token, nano-USD per million of them, at list price
-- @cached_millionths: What one that is read from the cache costs, in millionths of that; NULL where nobody knows
-- What calls were billed says it exactly, the call with most tokens best; long prompts, which may be dearer, are left
-- out. Where none with this price read the cache, others of the model tell the relation, else the price book does.
WITH paid AS (
  SELECT
    price_id, provider, model,
    arg_max({usd: input_cost_usd, tokens: fresh_tokens}, fresh_tokens)
      FILTER (fresh_tokens > 0 AND input_cost_usd > 0) AS input,
    arg_max({usd: cache_read_cost_usd, tokens: cache_read_tokens}, cache_read_tokens)
      FILTER (cache_read_tokens > 0) AS cache_read
  FROM waste_calls
  WHERE input_tokens <= 128000
  GROUP BY price_id, provider, model
),
told AS (
  SELECT
    price_id, provider, model,
    CAST(CAST(input.usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * 1000000 // input.tokens AS input_rate,
    CAST(CAST(coalesce(cache_read.usd, 0) AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * 1000000 // cache_read.tokens
      AS cache_read_rate,
    CAST(round(cache_read_rate * 1000000 / input_rate) AS BIGINT) AS cached_millionths,
    cache_read.tokens AS tokens
  FROM paid
)
SELECT
  price_id, told.provider, told.model,
  coalesce(told.input_rate, book.input_rate) AS input_rate,
  coalesce(
    cached_millionths,
    arg_max(cached_millionths, tokens) OVER (PARTITION BY told.provider, told.model),
    CAST(round(book.cache_read_rate * 1000000 / nullif(book.input_rate, 0)) AS BIGINT)
  ) AS cached_millionths
FROM told
  LEFT JOIN model_rates AS book ON book.model = told.model AND book.provider IS NOT DISTINCT FROM told.provider
