-- What each ticket cost, and what became of it. One row per ticket.
-- @ticket_id: Ticket, as the calls name it
-- @outcome: What became of the ticket; unknown_ticket until tickets are synced
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- @tasks: Number of tasks
-- @calls: Number of calls; one that is for several tickets counts for each of them
-- @unpriced_calls: Calls without a price; they are not in list_cost_usd
-- @list_cost_usd: Sum of the ticket's shares of its priced calls at list price, USD
SELECT
  ticket_id,
  'unknown_ticket' AS outcome,
  min(started_at) AS first_call_at,
  max(started_at) AS last_call_at,
  count(DISTINCT task_id) AS tasks,
  count(DISTINCT call_id) AS calls,
  count(DISTINCT call_id) FILTER (WHERE ticket_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(ticket_cost_usd), 0) AS list_cost_usd
FROM call_tickets
GROUP BY ticket_id
