-- Tasks by what they cost in a span of days. lost_cost_usd is what was spent on tickets that delivered nothing.
-- What takes long is told of those alone that are shown. The outcome is that of the ticket that most of the cost is for.
WITH days AS MATERIALIZED (
  SELECT
    task_id, ticket_id, outcome, team_id, whole_calls, whole_unpriced_calls, list_cost_usd, contracted_cost_usd, last_call_at
  FROM task_days
  WHERE task_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
    AND ($team IS NULL OR team_id = $team)
),
spent AS (
  SELECT
    task_id,
    sum(list_cost_usd) AS list_cost_usd,
    sum(list_cost_usd) FILTER (WHERE outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')) AS lost_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd,
    CAST(sum(whole_calls) AS BIGINT) AS calls,
    CAST(sum(whole_unpriced_calls) AS BIGINT) AS unpriced_calls,
    max(last_call_at) AS last_call_at
  FROM days
  GROUP BY task_id
),
shown AS MATERIALIZED (
  SELECT
    *, round(100 * list_cost_usd / nullif(sum(list_cost_usd) OVER (), 0), 1) AS percent,
    CASE $sort WHEN 'lost' THEN coalesce(lost_cost_usd, -1) WHEN 'calls' THEN calls ELSE list_cost_usd END AS rank
  FROM spent
  ORDER BY rank DESC, list_cost_usd DESC, task_id
  LIMIT $limit
),
of_tickets AS (
  SELECT
    task_id, ticket_id,
    any_value(outcome) AS outcome,
    sum(list_cost_usd) AS list_cost_usd,
    list(DISTINCT team_id) AS teams
  FROM days SEMI JOIN shown USING (task_id)
  GROUP BY task_id, ticket_id
),
told AS (
  SELECT
    task_id,
    array_to_string(list_sort(list(ticket_id)), ', ') AS tickets,
    arg_min_null(outcome, (-list_cost_usd, ticket_id)) FILTER (WHERE ticket_id IS NOT NULL) AS outcome,
    array_to_string(list_sort(list_distinct(flatten(list(teams)))), ', ') AS teams
  FROM of_tickets
  GROUP BY task_id
)
SELECT
  task_id, tickets, outcome, list_cost_usd, lost_cost_usd, contracted_cost_usd, percent, calls, unpriced_calls, teams,
  last_call_at
FROM shown JOIN told USING (task_id)
ORDER BY rank DESC, list_cost_usd DESC, task_id
