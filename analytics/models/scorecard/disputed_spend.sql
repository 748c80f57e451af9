-- Spend whose ticket is disputed: tag stuffing (W18) was found there, and nobody dismissed it. One row per call.
-- @call_id: Identifier of the call
-- @disputed_usd: Part of its cost, USD: of several tickets, the shares of those that are disputed
SELECT call_id, sum(coalesce(ticket_contracted_cost_usd, ticket_cost_usd)) AS disputed_usd
FROM (
  SELECT DISTINCT unnest(call_ids) AS call_id, ticket_id FROM waste_findings WHERE rule = 'W18' AND state <> 'dismissed'
) JOIN call_tickets USING (call_id, ticket_id)
GROUP BY call_id
