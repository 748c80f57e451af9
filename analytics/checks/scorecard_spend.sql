-- Spend of teams that is direct, inherited, split, overhead, unattributed and disputed sums to the cost of all calls.
WITH teams AS (
  SELECT
    coalesce(sum(direct_usd + inherited_usd + split_usd + overhead_usd + unattributed_usd + disputed_usd), 0) AS by_state_usd,
    coalesce(sum(spend_usd), 0) AS by_team_usd
  FROM team_spend
),
total AS (
  SELECT coalesce(sum(coalesce(contracted_cost_usd, list_cost_usd)), 0) AS total_usd FROM calls
)
FROM teams CROSS JOIN total
WHERE by_state_usd <> total_usd OR by_team_usd <> total_usd
