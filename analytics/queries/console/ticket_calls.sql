-- Calls for a ticket, the latest first, with the ticket's share of what each cost. One row per call.
SELECT * EXCLUDE (contracted_cost_usd)
FROM ticket_parts
ORDER BY started_at DESC, call_id
