-- What was spent in a span of days and in the one before it, and what it was for; calls without a price are in no sum, and counted beside it.
SELECT
  CAST(coalesce(sum(calls) FILTER (day >= CAST($from AS DATE)), 0) AS BIGINT) AS calls,
  CAST(coalesce(sum(unpriced_calls) FILTER (day >= CAST($from AS DATE)), 0) AS BIGINT) AS unpriced_calls,
  coalesce(sum(list_cost_usd) FILTER (day >= CAST($from AS DATE)), 0) AS list_cost_usd,
  coalesce(sum(list_cost_usd) FILTER (day < CAST($from AS DATE)), 0) AS before_usd,
  CAST(coalesce(sum(unpriced_calls) FILTER (day < CAST($from AS DATE)), 0) AS BIGINT) AS before_unpriced,
  coalesce(sum(list_cost_usd) FILTER (day >= CAST($from AS DATE) AND spent_for = 'ticket'), 0) AS for_tickets_usd,
  CAST(coalesce(sum(unpriced_calls) FILTER (day >= CAST($from AS DATE) AND spent_for = 'ticket'), 0) AS BIGINT) AS for_tickets_unpriced,
  coalesce(sum(list_cost_usd) FILTER (day >= CAST($from AS DATE) AND spent_for = 'overhead'), 0) AS overhead_usd,
  CAST(coalesce(sum(unpriced_calls) FILTER (day >= CAST($from AS DATE) AND spent_for = 'overhead'), 0) AS BIGINT) AS overhead_unpriced,
  coalesce(sum(list_cost_usd) FILTER (day >= CAST($from AS DATE) AND spent_for = 'nothing'), 0) AS unattributed_usd,
  CAST(coalesce(sum(unpriced_calls) FILTER (day >= CAST($from AS DATE) AND spent_for = 'nothing'), 0) AS BIGINT) AS unattributed_unpriced
FROM overview_calls
