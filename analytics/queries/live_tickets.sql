-- What tickets have cost up to now. One row per asked ticket.
-- One pass over the calls for all that are asked. Calls for several tickets, which are few, are all looked at; the
-- split is that of call_tickets, which would take all calls apart first.
WITH asked AS (
  SELECT unnest($ids) AS id
),
found AS (
  SELECT
    unnest(tickets) AS id,
    generate_subscripts(tickets, 1) AS ticket_position,
    len(tickets) AS ways,
    list_cost_usd, task_id, started_at, ticket_source, ticket_state,
    coalesce(response_model, request_model) AS model
  FROM calls
  WHERE tickets[1] IN (FROM asked) OR len(tickets) > 1
),
nano AS (
  SELECT *, CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS cost_nano
  FROM found SEMI JOIN asked USING (id)
),
mine AS MATERIALIZED (
  SELECT
    id, task_id, started_at, ticket_source, ticket_state, model,
    CAST(
      (cost_nano // ways + CASE WHEN ticket_position <= cost_nano % ways THEN 1 ELSE 0 END) * 0.000000001
      AS DECIMAL(18,9)
    ) AS ticket_cost_usd
  FROM nano
),
totals AS (
  SELECT
    id,
    arg_max_null(ticket_state, started_at) AS ticket_state,
    coalesce(sum(ticket_cost_usd), 0) AS list_cost_usd,
    count(*) AS calls,
    count(*) FILTER (WHERE ticket_cost_usd IS NULL) AS unpriced_calls,
    count(DISTINCT task_id) AS tasks,
    min(started_at) AS first_call_at,
    max(started_at) AS last_call_at
  FROM mine
  GROUP BY id
),
ticket_models AS (
  SELECT id, list(model_cost ORDER BY model_cost.list_cost_usd DESC, model_cost.model) AS models
  FROM (
    SELECT
      id,
      {
        model: model,
        calls: count(*),
        unpriced_calls: count(*) FILTER (WHERE ticket_cost_usd IS NULL),
        list_cost_usd: coalesce(sum(ticket_cost_usd), 0)
      } AS model_cost
    FROM mine
    GROUP BY id, model
  )
  GROUP BY id
),
ticket_sources AS (
  SELECT id, list(source_cost ORDER BY source_cost.list_cost_usd DESC, source_cost.ticket_source) AS sources
  FROM (
    SELECT
      id,
      {
        ticket_source: ticket_source,
        calls: count(*),
        list_cost_usd: coalesce(sum(ticket_cost_usd), 0)
      } AS source_cost
    FROM mine
    GROUP BY id, ticket_source
  )
  GROUP BY id
)
SELECT
  id AS ticket_id,
  ticket_state,
  coalesce(list_cost_usd, 0.000000000) AS list_cost_usd,
  coalesce(calls, 0) AS calls,
  coalesce(unpriced_calls, 0) AS unpriced_calls,
  coalesce(tasks, 0) AS tasks,
  first_call_at,
  last_call_at,
  coalesce(models, []) AS models,
  coalesce(sources, []) AS sources
FROM asked
  LEFT JOIN totals USING (id)
  LEFT JOIN ticket_models USING (id)
  LEFT JOIN ticket_sources USING (id)
