-- Calls and their list cost in whole nano-USD, by day, of the segment that was read.
SELECT
  day,
  count(*) AS calls,
  coalesce(sum(CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT)), 0) AS list_cost_nano
FROM segment_calls
GROUP BY day
ORDER BY day
