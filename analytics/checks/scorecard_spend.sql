-- Spend of teams that is direct, inherited, split, overhead, unattributed and disputed sums to the cost of all calls.
WITH sums AS (
  SELECT
    (
      SELECT coalesce(sum(direct_usd + inherited_usd + split_usd + overhead_usd + unattributed_usd + disputed_usd), 0)
      FROM team_spend
    ) AS by_state_usd,
    (SELECT coalesce(sum(spend_usd), 0) FROM team_spend) AS by_team_usd,
    (SELECT coalesce(sum(coalesce(contracted_cost_usd, list_cost_usd)), 0) FROM calls) AS total_usd
)
FROM sums
WHERE by_state_usd <> total_usd OR by_team_usd <> total_usd
