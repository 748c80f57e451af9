-- What was exported, in one row.
SELECT
  count(*), CAST(coalesce(sum("BilledCost"), 0.000000000) AS VARCHAR),
  CAST(coalesce(sum("x_Calls") FILTER (WHERE "x_PriceStatus" = 'unpriced'), 0) AS BIGINT), count("ChargeClass")
FROM exported
