-- What corrections changed. One row per correction; a call corrected twice has two.
-- @cause: Why the call was corrected: usage (what was billed became known later), price (another price book), attribution
-- @list_cost_before_usd: List cost before the correction, USD; NULL when the call had no price
-- @list_cost_after_usd: List cost since the correction, USD; NULL when the call has no price
-- @contracted_cost_before_usd: Contracted cost before the correction, USD
-- @contracted_cost_after_usd: Contracted cost since the correction, USD
-- @price_book_before: Price book before the correction
-- @price_book_after: Price book since the correction
-- @usage_source_before: Source of the token counts before the correction
-- @usage_source_after: Source of the token counts since the correction
WITH restated AS MATERIALIZED (
  FROM restated_calls
)
SELECT
  call_id, recorded_at, corrected_at, correction AS cause,
  lag(list_cost_usd) OVER steps AS list_cost_before_usd, list_cost_usd AS list_cost_after_usd,
  lag(contracted_cost_usd) OVER steps AS contracted_cost_before_usd, contracted_cost_usd AS contracted_cost_after_usd,
  lag(price_book) OVER steps AS price_book_before, price_book AS price_book_after,
  lag(usage_source) OVER steps AS usage_source_before, usage_source AS usage_source_after
FROM (
  SELECT *, NULL AS correction, NULL AS corrected_at FROM booked_calls SEMI JOIN restated USING (call_id)
  UNION ALL BY NAME
  FROM restated
)
WINDOW steps AS (PARTITION BY call_id ORDER BY corrected_at NULLS FIRST, segment)
QUALIFY correction IS NOT NULL
