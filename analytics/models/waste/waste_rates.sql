-- What tokens cost, by the prices that calls paid. One row per price_id, provider and model.
-- @input_rate: An uncached input token, nano-USD per million of them, at list price
-- @cache_read_rate: A token read from the cache, likewise; NULL where nobody knows
-- What calls with this price were billed says it exactly, the call with most tokens best. Where none of them read the
-- cache, the price book's relation of cached to uncached input is taken (model_rates).
WITH paid AS (
  SELECT
    price_id, provider, model,
    arg_max({usd: input_cost_usd, tokens: fresh_tokens}, fresh_tokens)
      FILTER (fresh_tokens > 0 AND input_cost_usd > 0) AS input,
    arg_max({usd: cache_read_cost_usd, tokens: cache_read_tokens}, cache_read_tokens)
      FILTER (cache_read_tokens > 0) AS cache_read
  FROM waste_calls
  WHERE price_id IS NOT NULL
  GROUP BY price_id, provider, model
),
told AS (
  SELECT
    price_id, provider, model,
    CAST(CAST(input.usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * 1000000 // input.tokens AS input_rate,
    CAST(CAST(coalesce(cache_read.usd, 0) AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * 1000000 // cache_read.tokens AS cache_read_rate
  FROM paid
)
SELECT
  price_id, provider, model,
  coalesce(told.input_rate, book.input_rate) AS input_rate,
  coalesce(
    told.cache_read_rate,
    coalesce(told.input_rate, book.input_rate) * book.cache_read_rate // nullif(book.input_rate, 0)
  ) AS cache_read_rate
FROM told LEFT JOIN model_rates AS book USING (provider, model)
