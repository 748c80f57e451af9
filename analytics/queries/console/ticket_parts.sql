-- Calls for a ticket by any of its keys, with its share of what each cost: that of call_tickets. One row per call.
SELECT
  started_at, call_id, team_id, model, client, ticket_source, ticket_state, task_id, result, input_tokens, output_tokens,
  CAST(
    (list_nano // ways * own + len(list_intersect(tickets[:list_nano % ways], $names))) * 0.000000001 AS DECIMAL(18,9)
  ) AS list_cost_usd,
  CAST(
    (contracted_nano // ways * own + len(list_intersect(tickets[:contracted_nano % ways], $names))) * 0.000000001
    AS DECIMAL(18,9)
  ) AS contracted_cost_usd
FROM (
  SELECT
    started_at, call_id, team_id, coalesce(response_model, request_model) AS model, client, ticket_source, ticket_state,
    task_id, result, input_tokens, output_tokens, tickets, len(tickets) AS ways,
    len(list_intersect(tickets, $names)) AS own,
    CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS list_nano,
    CAST(CAST(contracted_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS contracted_nano
  FROM calls
  WHERE list_has_any(tickets, $names)
)
