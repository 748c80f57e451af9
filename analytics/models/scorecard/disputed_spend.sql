-- Spend whose ticket is disputed: tag stuffing (W18) was found there, and nobody dismissed it. One row per call.
-- @call_id: Identifier of the call
-- @disputed_usd: Part of its cost, USD: of several tickets, the shares of those that are disputed
-- A ticket may have had another key when the call was made.
WITH disputed AS (
  SELECT DISTINCT call_id, coalesce(names.ticket_id, found.ticket_id) AS ticket_id
  FROM (SELECT unnest(call_ids) AS call_id, ticket_id FROM waste_findings WHERE rule = 'W18' AND state <> 'dismissed') AS found
    LEFT JOIN ticket_names AS names ON names.name = found.ticket_id
)
SELECT call_id, sum(coalesce(ticket_contracted_cost_usd, ticket_cost_usd)) AS disputed_usd
FROM call_tickets AS parts LEFT JOIN ticket_names AS names ON names.name = parts.ticket_id
  SEMI JOIN disputed ON disputed.call_id = parts.call_id
    AND disputed.ticket_id = coalesce(names.ticket_id, parts.ticket_id)
GROUP BY call_id
