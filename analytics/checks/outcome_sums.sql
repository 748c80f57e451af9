-- Of each outcome, spend by team and month is that of its tickets, and no ticket has two of them.
WITH by_ticket AS (
  SELECT
    outcome, sum(list_cost_usd) AS list_cost_usd, sum(contracted_cost_usd) AS contracted_cost_usd,
    sum(unpriced_calls) AS unpriced_calls, count(*) - count(DISTINCT ticket_id) AS twice
  FROM ticket_costs
  GROUP BY outcome
),
by_month AS (
  SELECT
    outcome, sum(list_cost_usd) AS list_cost_usd, sum(contracted_cost_usd) AS contracted_cost_usd,
    sum(unpriced_calls) AS unpriced_calls
  FROM outcome_costs
  GROUP BY outcome
)
SELECT
  coalesce(by_ticket.outcome, by_month.outcome) AS outcome, by_ticket.list_cost_usd AS ticket_usd,
  by_month.list_cost_usd AS month_usd, twice
FROM by_ticket FULL JOIN by_month ON by_ticket.outcome IS NOT DISTINCT FROM by_month.outcome
WHERE twice > 0
  OR (by_ticket.list_cost_usd, by_ticket.contracted_cost_usd, by_ticket.unpriced_calls)
    IS DISTINCT FROM (by_month.list_cost_usd, by_month.contracted_cost_usd, by_month.unpriced_calls)
  OR by_ticket.outcome NOT IN ('delivered', 'in_progress', 'abandoned', 'stale', 'reverted', 'unknown_ticket')
