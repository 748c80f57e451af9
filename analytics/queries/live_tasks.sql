-- What tasks have cost up to now, by the calls booked since a day. One row per asked id: of a task, or of a session of a tool.
-- One pass over the calls for all that are asked; without `day` it would be one over all days.
WITH asked AS (
  SELECT unnest($ids) AS id
),
found AS MATERIALIZED (
  SELECT
    task_id, session_id, started_at, tickets, list_cost_usd, coalesce(response_model, request_model) AS model
  FROM calls
  WHERE day >= $since AND (task_id IN (FROM asked) OR session_id IN (FROM asked))
),
mine AS MATERIALIZED (
  SELECT id, started_at, tickets, list_cost_usd, model FROM found JOIN asked ON id = task_id
  UNION ALL
  SELECT id, started_at, tickets, list_cost_usd, model
  FROM found JOIN asked ON id = session_id AND task_id IS DISTINCT FROM session_id
),
totals AS (
  SELECT
    id,
    coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
    count(*) AS calls,
    count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
    min(started_at) AS first_call_at,
    max(started_at) AS last_call_at
  FROM mine
  GROUP BY id
),
task_tickets AS (
  SELECT id, list(ticket_id ORDER BY last_call_at DESC, ticket_position, ticket_id) AS tickets
  FROM (
    SELECT id, ticket_id, max(started_at) AS last_call_at, min(ticket_position) AS ticket_position
    FROM (
      SELECT id, started_at, unnest(tickets) AS ticket_id, generate_subscripts(tickets, 1) AS ticket_position FROM mine
    )
    GROUP BY id, ticket_id
  )
  GROUP BY id
),
task_models AS (
  SELECT id, list(model_cost ORDER BY model_cost.list_cost_usd DESC, model_cost.model) AS models
  FROM (
    SELECT
      id,
      {
        model: model,
        calls: count(*),
        unpriced_calls: count(*) FILTER (WHERE list_cost_usd IS NULL),
        list_cost_usd: coalesce(sum(list_cost_usd), 0)
      } AS model_cost
    FROM mine
    GROUP BY id, model
  )
  GROUP BY id
)
SELECT
  id AS task_id,
  coalesce(tickets, []) AS tickets,
  coalesce(list_cost_usd, 0.000000000) AS list_cost_usd,
  coalesce(calls, 0) AS calls,
  coalesce(unpriced_calls, 0) AS unpriced_calls,
  first_call_at,
  last_call_at,
  coalesce(models, []) AS models
FROM asked
  LEFT JOIN totals USING (id)
  LEFT JOIN task_tickets USING (id)
  LEFT JOIN task_models USING (id)
