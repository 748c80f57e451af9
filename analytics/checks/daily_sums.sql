-- Spend by day, by price status and of all calls are the same, and so are the numbers of calls.
WITH sums AS (
  SELECT
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(calls), 0)) FROM spend_daily) AS by_day,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(calls), 0)) FROM price_coverage) AS by_price,
    (SELECT (coalesce(sum(list_cost_usd), 0), count(*)) FROM calls) AS total
)
FROM sums
WHERE by_day <> total OR by_price <> total
