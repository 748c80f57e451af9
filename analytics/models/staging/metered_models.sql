-- What was metered of each model on each day, for comparing it with invoices. One row per provider, day and name of the model. Calls that the gateway refused are left out.
-- @provider: Provider
-- @day: UTC day on which the calls started
-- @name: Model as the price book names it; where it has none or guesses, the one that answered, else the one asked for
-- @calls: Number of calls that reached the provider
-- @unpriced_calls: Calls without a price; they are in no sum
-- @interrupted_calls: Priced calls that a crash of the gateway left open
-- @aborted_calls: Priced calls that the client, a cut or a budget ended, and whose usage is not as the provider reported it
-- @estimated_calls: Other priced calls whose usage is estimated, wholly or in part
-- @list_nano: Sum of the priced calls at list price, nano-USD
-- @metered_nano: Sum of the priced calls after discounts, nano-USD
-- @interrupted_nano: What the interrupted calls are in metered_nano
-- @aborted_nano: What the aborted calls are in metered_nano
-- @estimated_nano: What the estimated calls are in metered_nano
-- @midnight_nano: What the calls that were answered after the day's end are in metered_nano
WITH costs AS (
  SELECT
    provider,
    CAST(started_at AS DATE) AS day,
    CASE WHEN price_status IN ('exact', 'alias') THEN price_id END AS price_id,
    coalesce(response_model, request_model, '(no model)') AS model,
    CASE
      WHEN list_cost_usd IS NULL THEN 'unpriced'
      WHEN result = 'interrupted' THEN 'interrupted'
      WHEN usage_source IS NOT DISTINCT FROM 'reported' OR list_cost_usd = 0 THEN 'certain'
      WHEN result IN ('client_cancelled', 'upstream_cut', 'stopped_by_budget') THEN 'aborted'
      ELSE 'estimated'
    END AS what,
    (epoch_us(started_at) + 1000 * coalesce(duration_ms, 0)) // 86400000000 > epoch_us(started_at) // 86400000000
      AS is_over_midnight,
    list_cost_usd,
    CASE WHEN list_cost_usd IS NOT NULL THEN coalesce(contracted_cost_usd, list_cost_usd) END AS metered_usd
  FROM calls
  WHERE provider IS NOT NULL AND result IS DISTINCT FROM 'refused'
),
sums AS (
  SELECT
    provider, day, price_id, model, what, is_over_midnight,
    count(*) AS calls,
    CAST(CAST(coalesce(sum(list_cost_usd), 0) AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS list_nano,
    CAST(CAST(coalesce(sum(metered_usd), 0) AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS metered_nano
  FROM costs
  GROUP BY ALL
)
SELECT
  provider,
  day,
  coalesce(nullif(regexp_extract(price_id, '^[^/]*/([^@#*&>+]+)', 1), ''), model) AS name,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(coalesce(sum(calls) FILTER (WHERE what = 'unpriced'), 0) AS BIGINT) AS unpriced_calls,
  CAST(coalesce(sum(calls) FILTER (WHERE what = 'interrupted'), 0) AS BIGINT) AS interrupted_calls,
  CAST(coalesce(sum(calls) FILTER (WHERE what = 'aborted'), 0) AS BIGINT) AS aborted_calls,
  CAST(coalesce(sum(calls) FILTER (WHERE what = 'estimated'), 0) AS BIGINT) AS estimated_calls,
  CAST(sum(list_nano) AS BIGINT) AS list_nano,
  CAST(sum(metered_nano) AS BIGINT) AS metered_nano,
  CAST(coalesce(sum(metered_nano) FILTER (WHERE what = 'interrupted'), 0) AS BIGINT) AS interrupted_nano,
  CAST(coalesce(sum(metered_nano) FILTER (WHERE what = 'aborted'), 0) AS BIGINT) AS aborted_nano,
  CAST(coalesce(sum(metered_nano) FILTER (WHERE what = 'estimated'), 0) AS BIGINT) AS estimated_nano,
  CAST(coalesce(sum(metered_nano) FILTER (WHERE is_over_midnight), 0) AS BIGINT) AS midnight_nano
FROM sums
GROUP BY ALL
