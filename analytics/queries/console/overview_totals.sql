-- What was spent in a span of days and in the one before it, and what it was for; calls without a price are in no sum, and counted beside it.
SELECT
  count(*) FILTER (started_at >= $from) AS calls,
  count(*) FILTER (started_at >= $from AND list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from), 0) AS list_cost_usd,
  coalesce(sum(list_cost_usd) FILTER (started_at < $from), 0) AS before_usd,
  count(*) FILTER (started_at < $from AND list_cost_usd IS NULL) AS before_unpriced,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND len(tickets) > 0), 0) AS for_tickets_usd,
  count(*) FILTER (started_at >= $from AND len(tickets) > 0 AND list_cost_usd IS NULL) AS for_tickets_unpriced,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND len(tickets) = 0 AND purpose IS NOT NULL), 0)
    AS overhead_usd,
  count(*) FILTER (started_at >= $from AND len(tickets) = 0 AND purpose IS NOT NULL AND list_cost_usd IS NULL)
    AS overhead_unpriced,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND len(tickets) = 0 AND purpose IS NULL), 0)
    AS unattributed_usd,
  count(*) FILTER (started_at >= $from AND len(tickets) = 0 AND purpose IS NULL AND list_cost_usd IS NULL)
    AS unattributed_unpriced
FROM calls
WHERE started_at >= $before AND started_at < $to
