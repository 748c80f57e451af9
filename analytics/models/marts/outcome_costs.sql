-- Spend on tickets by what became of them. One row per team, month and outcome.
-- @month: First day of the month in which the calls started, UTC
-- @tickets: Number of tickets
-- @durable_14d_usd: Part of list_cost_usd for tickets whose delivery was there 14 days later, USD
-- @pending_14d_usd: Part of list_cost_usd for deliveries that are younger than that, USD
-- @durable_30d_usd: Part of list_cost_usd for tickets whose delivery was there 30 days later, USD
-- @pending_30d_usd: Part of list_cost_usd for deliveries that are younger than that, USD
WITH survival AS (
  SELECT
    ticket_id,
    coalesce(reverted_days < 14, false) AS is_lost_14d,
    as_of >= delivered_at + INTERVAL 14 DAY AS is_settled_14d,
    coalesce(reverted_days < 30, false) AS is_lost_30d,
    as_of >= delivered_at + INTERVAL 30 DAY AS is_settled_30d
  FROM as_of, ticket_facts
)
SELECT
  team_id,
  date_trunc('month', day) AS month,
  outcome,
  count(DISTINCT ticket_id) AS tickets,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
  sum(list_cost_usd) AS list_cost_usd,
  sum(contracted_cost_usd) AS contracted_cost_usd,
  coalesce(sum(list_cost_usd) FILTER (WHERE is_settled_14d AND NOT is_lost_14d), 0) AS durable_14d_usd,
  coalesce(sum(list_cost_usd) FILTER (WHERE NOT is_settled_14d AND NOT is_lost_14d), 0) AS pending_14d_usd,
  coalesce(sum(list_cost_usd) FILTER (WHERE is_settled_30d AND NOT is_lost_30d), 0) AS durable_30d_usd,
  coalesce(sum(list_cost_usd) FILTER (WHERE NOT is_settled_30d AND NOT is_lost_30d), 0) AS pending_30d_usd
FROM task_days LEFT JOIN survival USING (ticket_id)
WHERE ticket_id IS NOT NULL
GROUP BY team_id, date_trunc('month', day), outcome
