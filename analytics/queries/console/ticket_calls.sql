-- Calls for a ticket, the latest first, with the ticket's share of what each cost. One row per call.
WITH names AS (
  SELECT list(name) AS names FROM (SELECT name FROM ticket_names WHERE ticket_id = $ticket UNION SELECT $ticket)
)
SELECT
  started_at, call_id, team_id, coalesce(response_model, request_model) AS model, client, ticket_source, ticket_state, task_id,
  result, input_tokens, output_tokens,
  CASE WHEN len(tickets) = 1 THEN list_cost_usd ELSE (
    SELECT sum(ticket_cost_usd) FROM call_shares AS shares
    WHERE shares.call_id = calls.call_id AND list_contains(names, shares.ticket_id)
  ) END AS list_cost_usd
FROM calls, names
WHERE list_has_any(tickets, names)
ORDER BY started_at DESC, call_id
