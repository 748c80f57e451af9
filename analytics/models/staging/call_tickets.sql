-- Calls split over their tickets. One row per call and ticket.
-- @ticket_id: Ticket, as the call names it
-- @ticket_position: Place of the ticket among the call's tickets, from 1
-- @ticket_cost_usd: This ticket's equal share of list_cost_usd, USD; the nano-dollars that do not divide go to the first tickets, so that the shares sum to the call's cost
-- @ticket_contracted_cost_usd: This ticket's equal share of contracted_cost_usd, USD, divided alike
SELECT
  call_id, started_at, team_id, task_id, day, ticket_id, 1 AS ticket_position,
  list_cost_usd AS ticket_cost_usd, contracted_cost_usd AS ticket_contracted_cost_usd
FROM calls
WHERE len(tickets) = 1
UNION ALL
SELECT call_id, started_at, team_id, task_id, day, ticket_id, ticket_position, ticket_cost_usd, ticket_contracted_cost_usd
FROM call_shares
