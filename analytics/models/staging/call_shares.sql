-- Calls for several tickets, split over them. One row per call and ticket.
-- @ticket_id: Ticket, as the call names it
-- @ticket_position: Place of the ticket among the call's tickets, from 1
-- @ticket_cost_usd: This ticket's equal share of list_cost_usd, USD; the nano-dollars that do not divide go to the first tickets, so that the shares sum to the call's cost
-- @ticket_contracted_cost_usd: This ticket's equal share of contracted_cost_usd, USD, divided alike
SELECT
  call_id, started_at, team_id, task_id, day, ticket_id, ticket_position,
  CAST(
    (list_nano // ways + CASE WHEN ticket_position <= list_nano % ways THEN 1 ELSE 0 END) * 0.000000001 AS DECIMAL(18,9)
  ) AS ticket_cost_usd,
  CAST(
    (contracted_nano // ways + CASE WHEN ticket_position <= contracted_nano % ways THEN 1 ELSE 0 END) * 0.000000001
    AS DECIMAL(18,9)
  ) AS ticket_contracted_cost_usd
FROM (
  SELECT
    call_id, started_at, team_id, task_id, day,
    unnest(tickets) AS ticket_id,
    generate_subscripts(tickets, 1) AS ticket_position,
    len(tickets) AS ways,
    CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS list_nano,
    CAST(CAST(contracted_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS contracted_nano
  FROM calls
  WHERE len(tickets) > 1
)
