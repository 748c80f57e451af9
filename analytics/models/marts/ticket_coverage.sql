-- How well founded it is what calls are for. One row per day, team, client, ticket source and ticket state.
-- @day: UTC day on which the calls started
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are not in list_cost_usd
-- @list_cost_usd: Sum of the priced calls at list price, USD
SELECT
  CAST(started_at AS DATE) AS day,
  team_id,
  client,
  coalesce(ticket_source, 'none') AS ticket_source,
  ticket_state,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
GROUP BY ALL
