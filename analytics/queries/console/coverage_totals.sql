-- How much of the spend in a span of days is for something, has a price, and was reported.
SELECT
  count(*) AS calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd) FILTER (WHERE len(tickets) = 0 AND purpose IS NOT NULL), 0) AS overhead_usd,
  count(*) FILTER (WHERE len(tickets) = 0 AND purpose IS NOT NULL AND list_cost_usd IS NULL) AS overhead_unpriced,
  coalesce(sum(list_cost_usd) FILTER (WHERE len(tickets) = 0 AND purpose IS NULL), 0) AS unattributed_usd,
  count(*) FILTER (WHERE len(tickets) = 0 AND purpose IS NULL) AS unattributed_calls,
  count(*) FILTER (WHERE len(tickets) = 0 AND purpose IS NULL AND list_cost_usd IS NULL) AS unattributed_unpriced,
  coalesce(sum(list_cost_usd) FILTER (WHERE usage_source IN ('estimated', 'partial')), 0) AS estimated_usd,
  count(*) FILTER (WHERE usage_source IN ('estimated', 'partial')) AS estimated_calls,
  count(*) FILTER (WHERE usage_source IN ('estimated', 'partial') AND list_cost_usd IS NULL) AS estimated_unpriced,
  coalesce(sum(list_cost_usd) FILTER (WHERE price_status = 'fallback'), 0) AS fallback_usd,
  count(*) FILTER (WHERE price_status = 'fallback') AS fallback_calls
FROM calls
WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
