-- Calls with what was really paid for their parts, and for tokens. One row per call.
-- @input_nano: Paid for its uncached input, nano-USD
-- @cache_read_nano: Paid for input that was read from the cache, nano-USD
-- @cache_write_nano: Paid for input that was written to the cache, nano-USD
-- @output_nano: Paid for its output, nano-USD
-- @fresh_rate: An uncached input token, nano-USD per million of them, as this call paid it; else by waste_rates
-- @cached_rate: A token that is read from the cache, likewise; NULL where nobody knows
-- Parts are told at list price; they are taken in the relation of cost and list cost. A long prompt may pay more for a
-- token than others at the same price: so what the call itself paid comes first. Of a cost that is not divided, input
-- has its part by waste_rates, and output the rest.
WITH told AS (
  SELECT
    *,
    [
      CAST(CAST(part AS DECIMAL(28,9)) * 1000000000 AS HUGEINT) * cost_nano // nullif(list_nano, 0)
      FOR part IN [input_cost_usd, cache_read_cost_usd, cache_write_cost_usd, output_cost_usd]
    ] AS parts,
    coalesce(input_cost_usd, cache_read_cost_usd, cache_write_cost_usd, output_cost_usd) IS NULL AS is_whole
  FROM waste_calls
),
rated AS (
  SELECT
    told.*,
    CASE WHEN fresh_tokens > 0 AND parts[1] > 0 THEN parts[1] * 1000000 // fresh_tokens
      ELSE input_rate * cost_nano // nullif(list_nano, 0) END AS fresh_rate,
    CASE WHEN cache_read_tokens > 0 AND parts[2] IS NOT NULL THEN parts[2] * 1000000 // cache_read_tokens
      ELSE fresh_rate * cached_millionths // 1000000 END AS cached_rate
  FROM told
    LEFT JOIN waste_rates AS rates ON rates.model IS NOT DISTINCT FROM told.model
      AND rates.provider IS NOT DISTINCT FROM told.provider AND rates.price_id IS NOT DISTINCT FROM told.price_id
)
SELECT
  * EXCLUDE (parts, is_whole),
  CASE WHEN is_whole THEN fresh_tokens * fresh_rate // 1000000 ELSE coalesce(parts[1], 0) END AS input_nano,
  CASE WHEN is_whole THEN cache_read_tokens * coalesce(cached_rate, fresh_rate) // 1000000 ELSE coalesce(parts[2], 0) END
    AS cache_read_nano,
  CASE WHEN is_whole THEN cache_write_tokens * fresh_rate // 1000000 ELSE coalesce(parts[3], 0) END AS cache_write_nano,
  CASE WHEN is_whole THEN cost_nano - input_nano - cache_read_nano - cache_write_nano ELSE coalesce(parts[4], 0) END
    AS output_nano
FROM rated
