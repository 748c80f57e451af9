-- What tokens cost, by the prices that calls paid. One row per price_id, provider and model.
-- @input_rate: An uncached input token, nano-USD per million of them, at list price
-- @cache_read_rate: A token read from the cache, likewise; NULL where nobody knows
-- What calls with this price were billed says it exactly, the call with most tokens best. Where none of them read the
-- cache, the price book's relation of cached to uncached input is taken (model_rates).
WITH paid AS (
  SELECT
    price_id, provider, model,
    arg_max(input_nano * 1000000 // nullif(fresh_tokens, 0), fresh_tokens) FILTER (fresh_tokens > 0 AND input_nano > 0)
      AS input_rate,
    arg_max(cache_read_nano * 1000000 // nullif(cache_read_tokens, 0), cache_read_tokens) FILTER (cache_read_tokens > 0)
      AS cache_read_rate
  FROM waste_calls
  WHERE price_id IS NOT NULL
  GROUP BY price_id, provider, model
)
SELECT
  price_id, provider, model,
  coalesce(paid.input_rate, book.input_rate) AS input_rate,
  coalesce(
    paid.cache_read_rate,
    coalesce(paid.input_rate, book.input_rate) * book.cache_read_rate // nullif(book.input_rate, 0)
  ) AS cache_read_rate
FROM paid LEFT JOIN model_rates AS book USING (provider, model)
