-- Calls, corrections and their list cost in whole nano-USD, by day, of the segment that was read.
SELECT
  day,
  count(*) FILTER (WHERE correction IS NULL) AS calls,
  coalesce(sum(list_cost_nano) FILTER (WHERE correction IS NULL), 0) AS list_cost_nano,
  count(correction) AS corrections,
  coalesce(sum(list_cost_nano) FILTER (WHERE correction IS NOT NULL), 0) AS corrections_nano,
  count(*) FILTER (WHERE correction IS NULL AND CAST(recorded_at AS DATE) < day) AS late_calls
FROM (SELECT *, CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS list_cost_nano FROM segment_entries)
GROUP BY day
ORDER BY day
