-- Calls as first recorded and corrections: their numbers and list cost in whole nano-USD.
FROM (
  SELECT
    count(*) AS calls,
    coalesce(sum(CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT)), 0) AS list_cost_nano
  FROM booked_calls
), (
  SELECT
    count(*) AS corrections,
    coalesce(sum(CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT)), 0) AS corrections_nano
  FROM restated_calls
)
