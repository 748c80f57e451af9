-- Tickets by what they cost in a span of days. lost_cost_usd is what was spent on those that delivered nothing.
-- What takes long is told of those alone that are shown.
WITH days AS MATERIALIZED (
  SELECT ticket_id, type, outcome, task_id, team_id, calls, unpriced_calls, list_cost_usd, contracted_cost_usd, last_call_at
  FROM task_days
  WHERE ticket_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
    AND ($team IS NULL OR team_id = $team)
),
spent AS (
  SELECT
    ticket_id,
    any_value(type) AS type,
    any_value(outcome) AS outcome,
    sum(list_cost_usd) AS list_cost_usd,
    sum(list_cost_usd) FILTER (WHERE outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')) AS lost_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    max(last_call_at) AS last_call_at
  FROM days
  GROUP BY ticket_id
),
shown AS MATERIALIZED (
  SELECT
    *, round(100 * list_cost_usd / nullif(sum(list_cost_usd) OVER (), 0), 1) AS percent,
    CASE $sort WHEN 'lost' THEN coalesce(lost_cost_usd, -1) WHEN 'calls' THEN calls ELSE list_cost_usd END AS rank
  FROM spent
  ORDER BY rank DESC, list_cost_usd DESC, ticket_id
  LIMIT $limit
),
told AS (
  SELECT
    ticket_id,
    count(DISTINCT task_id) AS tasks,
    array_to_string(list_sort(list(DISTINCT team_id)), ', ') AS teams
  FROM days SEMI JOIN shown USING (ticket_id)
  GROUP BY ticket_id
)
SELECT
  ticket_id, type, outcome, list_cost_usd, lost_cost_usd, contracted_cost_usd, percent, calls, unpriced_calls, tasks, teams,
  last_call_at
FROM shown JOIN told USING (ticket_id)
ORDER BY rank DESC, list_cost_usd DESC, ticket_id
