-- What was spent in a span of days and in the one before it, and what it was for.
SELECT
  count(*) FILTER (started_at >= $from) AS calls,
  count(*) FILTER (started_at >= $from AND list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from), 0) AS list_cost_usd,
  coalesce(sum(contracted_cost_usd) FILTER (started_at >= $from), 0) AS contracted_cost_usd,
  coalesce(sum(list_cost_usd) FILTER (started_at < $from), 0) AS before_usd,
  count(*) FILTER (started_at < $from AND list_cost_usd IS NULL) AS before_unpriced_calls,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND len(tickets) > 0), 0) AS for_tickets_usd,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND len(tickets) = 0 AND purpose IS NOT NULL), 0)
    AS overhead_usd,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND len(tickets) = 0 AND purpose IS NULL), 0)
    AS unattributed_usd,
  count(*) FILTER (started_at >= $from AND usage_source IN ('estimated', 'partial')) AS estimated_calls,
  coalesce(sum(list_cost_usd) FILTER (started_at >= $from AND usage_source IN ('estimated', 'partial')), 0)
    AS estimated_usd
FROM calls
WHERE started_at >= $before AND started_at < $to
