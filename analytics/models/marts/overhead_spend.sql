-- Spend that is declared overhead: a purpose and no ticket. One row per day, team and purpose.
-- @day: UTC day on which the calls started
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are in no sum
-- @tasks: Number of tasks
-- @list_cost_usd: Sum of the priced calls at list price, USD
-- @contracted_cost_usd: Sum of the priced calls after discounts, USD
SELECT
  CAST(started_at AS DATE) AS day,
  team_id,
  purpose,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  count(DISTINCT task_id) AS tasks,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
  coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd
FROM calls
WHERE len(tickets) = 0 AND purpose IS NOT NULL
GROUP BY ALL
