-- Spend on tickets, unattributed spend and overhead sum to the spend of all calls, at list price and after discounts.
WITH sums AS (
  SELECT
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0)) FROM ticket_costs) AS tickets,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0)) FROM unattributed_spend) AS unattributed,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0)) FROM overhead_spend) AS overhead,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0)) FROM calls) AS total
)
SELECT
  tickets[1] AS ticket_usd, unattributed[1] AS unattributed_usd, overhead[1] AS overhead_usd, total[1] AS total_usd,
  tickets[2] AS ticket_contracted_usd, unattributed[2] AS unattributed_contracted_usd,
  overhead[2] AS overhead_contracted_usd, total[2] AS total_contracted_usd
FROM sums
WHERE tickets[1] + unattributed[1] + overhead[1] <> total[1] OR tickets[2] + unattributed[2] + overhead[2] <> total[2]
