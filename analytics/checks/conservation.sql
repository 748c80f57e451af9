-- Spend on tickets, unattributed spend and overhead sum to the spend of all calls.
WITH sums AS (
  SELECT
    (SELECT coalesce(sum(list_cost_usd), 0) FROM ticket_costs) AS ticket_usd,
    (SELECT coalesce(sum(list_cost_usd), 0) FROM unattributed_spend) AS unattributed_usd,
    (SELECT coalesce(sum(list_cost_usd), 0) FROM calls WHERE len(tickets) = 0 AND purpose IS NOT NULL) AS overhead_usd,
    (SELECT coalesce(sum(list_cost_usd), 0) FROM calls) AS total_usd
)
FROM sums
WHERE ticket_usd + unattributed_usd + overhead_usd <> total_usd
