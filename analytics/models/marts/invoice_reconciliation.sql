-- What providers invoiced beside what was metered, and why they differ. One row per provider, day and model; and one for each item of an invoice that is of no known model.
-- @provider: Provider
-- @day: UTC day
-- @model: Model, by the shortest of its names; of an item without a known model, the item
-- @is_invoiced: An import covers this provider's day; else nothing is known of what was invoiced, and that is NULL
-- @is_known_model: The model is in the price book or among calls; else model is an item of the invoice
-- @is_final: The bill is closed; false while the provider calls it an estimate, NULL where exports do not tell
-- @invoiced_usd: All that was charged, USD: usage, taxes, credits, fees
-- @usage_usd: Of that, usage after discounts, USD: what metering can be compared with
-- @metered_usd: What the gateway metered, after discounts, USD
-- @metered_list_usd: What the gateway metered, at list price, USD
-- @calls: Calls that reached the provider
-- @capture_percent: metered_usd in percent of usage_usd; NULL where no usage was charged
-- @residual_usd: invoiced_usd less metered_usd, USD; the ten columns after it sum to it
-- @tax_usd: Taxes, USD
-- @credit_usd: Credits, refunds and corrections, USD; mostly negative
-- @fee_usd: Commitments and subscriptions, USD
-- @day_shift_usd: Of calls that were answered after midnight: what the provider booked on the next day; negative there where it was metered, positive on the next day
-- @unmapped_usd: Usage of an item that is of no known model: a tool, a storage, a name that is not known
-- @bypassed_usd: Usage of a model that no call was made of on that day: it went past the gateway
-- @unpriced_usd: At most what the calls without a price may have cost: as many at the average of the others; all, where there are no others
-- @interrupted_usd: At most what calls that a crash left open were metered at; negative where less was charged than metered
-- @aborted_usd: The same of calls that ended early and whose usage is not as the provider reported it
-- @estimated_usd: The same of other calls whose usage is estimated
-- @unexplained_usd: What none of this explains; negative where less was charged than metered
-- Each part takes from what those before it left, never more than that, and with its sign: no dollar is explained twice.
-- Whole nano-USD up to the last step. `gap` is what usage on the invoice has more than what was metered.
-- Calls are summed once, and named once: what is asked more than once is MATERIALIZED.
WITH sums AS MATERIALIZED (
  FROM metered_models
),
keys AS MATERIALIZED (
  FROM model_keys
),
days AS (
  SELECT DISTINCT provider, day FROM invoice_lines
),
lines AS (
  SELECT
    provider, day, charge, is_final,
    coalesce(is_known_model OR is_metered, false) AS is_known,
    CASE WHEN is_known_model OR is_metered THEN model_key ELSE ': ' || item END AS model_key,
    CASE WHEN is_known_model OR is_metered THEN model ELSE item END AS name,
    CAST(CAST(amount_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS nano
  FROM invoice_lines
    LEFT JOIN (SELECT provider, name AS model, model_key, is_metered FROM keys) USING (provider, model)
  WHERE charge <> 'none'
),
invoiced AS (
  SELECT
    provider, day, model_key,
    bool_or(is_known) AS is_known_model,
    bool_and(is_final) AS is_final,
    CAST(sum(nano) AS BIGINT) AS invoiced,
    CAST(coalesce(sum(nano) FILTER (WHERE charge IN ('usage', 'discount')), 0) AS BIGINT) AS usage,
    CAST(coalesce(sum(nano) FILTER (WHERE charge = 'tax'), 0) AS BIGINT) AS tax,
    CAST(coalesce(sum(nano) FILTER (WHERE charge = 'credit'), 0) AS BIGINT) AS credit,
    CAST(coalesce(sum(nano) FILTER (WHERE charge = 'fee'), 0) AS BIGINT) AS fee
  FROM lines
  GROUP BY ALL
),
metered AS (
  SELECT provider, day, model_key, CAST(sum(COLUMNS(* EXCLUDE (provider, day, model_key, name, is_metered))) AS BIGINT)
  FROM sums JOIN keys USING (provider, name)
  GROUP BY ALL
),
names AS (
  SELECT provider, model_key, min_by(name, (length(name), name)) AS model
  FROM (
    SELECT provider, model_key, name FROM keys
    UNION ALL
    SELECT provider, model_key, name FROM lines WHERE NOT is_known
  )
  GROUP BY ALL
),
pairs AS (
  SELECT
    provider, day, model, days.day IS NOT NULL AS is_invoiced, coalesce(is_known_model, true) AS is_known_model, is_final,
    coalesce(invoiced, 0) AS invoiced, coalesce(usage, 0) AS usage, coalesce(tax, 0) AS tax,
    coalesce(credit, 0) AS credit, coalesce(fee, 0) AS fee,
    coalesce(calls, 0) AS calls, coalesce(unpriced_calls, 0) AS unpriced_calls,
    coalesce(interrupted_calls, 0) AS interrupted_calls, coalesce(aborted_calls, 0) AS aborted_calls,
    coalesce(estimated_calls, 0) AS estimated_calls,
    coalesce(list_nano, 0) AS list_nano, coalesce(metered_nano, 0) AS metered,
    coalesce(interrupted_nano, 0) AS interrupted_room, coalesce(aborted_nano, 0) AS aborted_room,
    coalesce(estimated_nano, 0) AS estimated_room, coalesce(midnight_nano, 0) AS midnight_room
  FROM invoiced
    FULL JOIN metered USING (provider, day, model_key)
    LEFT JOIN days USING (provider, day)
    JOIN names USING (provider, model_key)
),
gaps AS (
  SELECT *, CASE WHEN is_invoiced THEN usage - metered END AS gap FROM pairs
),
leaving AS (
  SELECT *, CASE
    WHEN gap < 0 AND lead(day) OVER ahead = day + 1 AND lead(gap) OVER ahead > 0
      THEN least(-gap, lead(gap) OVER ahead, midnight_room)
    ELSE 0
  END AS shifted
  FROM gaps
  WINDOW ahead AS (PARTITION BY provider, model, is_known_model ORDER BY day)
),
moved AS (
  SELECT *, CASE WHEN lag(day) OVER ahead = day - 1 THEN lag(shifted) OVER ahead ELSE 0 END - shifted AS day_shift
  FROM leaving
  WINDOW ahead AS (PARTITION BY provider, model, is_known_model ORDER BY day)
),
parts AS (
  SELECT
    *,
    gap - day_shift AS rest,
    sign(rest) AS side,
    CASE WHEN is_known_model THEN 0 ELSE rest END AS unmapped,
    CASE WHEN is_known_model AND calls = 0 AND rest > 0 THEN rest ELSE 0 END AS bypassed,
    rest - unmapped - bypassed AS rest1,
    CASE
      WHEN rest1 <= 0 OR unpriced_calls = 0 THEN 0
      WHEN calls = unpriced_calls THEN rest1
      ELSE least(rest1, CAST(metered AS HUGEINT) * unpriced_calls // (calls - unpriced_calls))
    END AS unpriced,
    rest1 - unpriced AS rest2,
    side * least(abs(rest2), interrupted_room) AS interrupted,
    rest2 - interrupted AS rest3,
    side * least(abs(rest3), aborted_room) AS aborted,
    rest3 - aborted AS rest4,
    side * least(abs(rest4), estimated_room) AS estimated,
    rest4 - estimated AS unexplained
  FROM moved
)
SELECT
  provider,
  day,
  model,
  is_invoiced,
  is_known_model,
  is_final,
  CAST(CASE WHEN is_invoiced THEN invoiced END * 0.000000001 AS DECIMAL(18,9)) AS invoiced_usd,
  CAST(CASE WHEN is_invoiced THEN usage END * 0.000000001 AS DECIMAL(18,9)) AS usage_usd,
  CAST(metered * 0.000000001 AS DECIMAL(18,9)) AS metered_usd,
  CAST(list_nano * 0.000000001 AS DECIMAL(18,9)) AS metered_list_usd,
  calls,
  unpriced_calls,
  interrupted_calls,
  aborted_calls,
  estimated_calls,
  CASE WHEN is_invoiced AND usage > 0 THEN CAST(round(100 * metered / usage, 1) AS DECIMAL(18,1)) END AS capture_percent,
  invoiced_usd - metered_usd AS residual_usd,
  CAST(CASE WHEN is_invoiced THEN tax END * 0.000000001 AS DECIMAL(18,9)) AS tax_usd,
  CAST(CASE WHEN is_invoiced THEN credit END * 0.000000001 AS DECIMAL(18,9)) AS credit_usd,
  CAST(CASE WHEN is_invoiced THEN fee END * 0.000000001 AS DECIMAL(18,9)) AS fee_usd,
  CAST(CASE WHEN is_invoiced THEN day_shift END * 0.000000001 AS DECIMAL(18,9)) AS day_shift_usd,
  CAST(unmapped * 0.000000001 AS DECIMAL(18,9)) AS unmapped_usd,
  CAST(bypassed * 0.000000001 AS DECIMAL(18,9)) AS bypassed_usd,
  CAST(unpriced * 0.000000001 AS DECIMAL(18,9)) AS unpriced_usd,
  CAST(interrupted * 0.000000001 AS DECIMAL(18,9)) AS interrupted_usd,
  CAST(aborted * 0.000000001 AS DECIMAL(18,9)) AS aborted_usd,
  CAST(estimated * 0.000000001 AS DECIMAL(18,9)) AS estimated_usd,
  CAST(unexplained * 0.000000001 AS DECIMAL(18,9)) AS unexplained_usd
FROM parts
