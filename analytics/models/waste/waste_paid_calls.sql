-- Calls with what was really paid for their parts, and for tokens. One row per call.
-- @input_nano: Paid for its uncached input, nano-USD
-- @cache_read_nano: Paid for input that was read from the cache, nano-USD
-- @cache_write_nano: Paid for input that was written to the cache, nano-USD
-- @output_nano: Paid for its output, nano-USD
-- @fresh_rate: An uncached input token, nano-USD per million of them, as this call paid it; else by waste_rates
-- @cached_rate: A token that is read from the cache, likewise; NULL where nobody knows
-- Parts are told at list price; they are taken in the relation of cost and list cost. A long prompt may pay more for a
-- token than others at the same price: so what the call itself paid comes first.
WITH parts AS (
  SELECT
    *,
    CAST(CAST(input_cost_usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * cost_nano // nullif(list_nano, 0)
      AS input_nano,
    CAST(CAST(cache_read_cost_usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * cost_nano // nullif(list_nano, 0)
      AS cache_read_nano,
    CAST(CAST(cache_write_cost_usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * cost_nano // nullif(list_nano, 0)
      AS cache_write_nano,
    CAST(CAST(output_cost_usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * cost_nano // nullif(list_nano, 0)
      AS output_nano
  FROM waste_calls
)
SELECT
  parts.*,
  CASE WHEN fresh_tokens > 0 AND input_nano > 0 THEN input_nano * 1000000 // fresh_tokens
    ELSE input_rate * cost_nano // nullif(list_nano, 0) END AS fresh_rate,
  CASE WHEN cache_read_tokens > 0 AND cache_read_nano IS NOT NULL THEN cache_read_nano * 1000000 // cache_read_tokens
    ELSE fresh_rate * cached_millionths // 1000000 END AS cached_rate
FROM parts
  LEFT JOIN waste_rates AS rates ON rates.model IS NOT DISTINCT FROM parts.model
    AND rates.provider IS NOT DISTINCT FROM parts.provider AND rates.price_id IS NOT DISTINCT FROM parts.price_id
