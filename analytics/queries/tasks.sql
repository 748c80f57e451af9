-- Tasks by what they cost in a span of days. lost_cost_usd is what was spent on tickets that delivered nothing.
SELECT
  task_id,
  array_to_string(list_sort(list_distinct(tickets)), ', ') AS tickets,
  outcome, list_cost_usd, lost_cost_usd, contracted_cost_usd,
  round(100 * list_cost_usd / nullif(sum(list_cost_usd) OVER (), 0), 1) AS percent,
  calls, unpriced_calls,
  array_to_string(list_sort(list_distinct(teams)), ', ') AS teams,
  last_call_at
FROM (
  SELECT
    task_id,
    list(ticket_id) AS tickets,
    arg_min_null(outcome, (-list_cost_usd, ticket_id)) FILTER (WHERE ticket_id IS NOT NULL) AS outcome,
    sum(list_cost_usd) AS list_cost_usd,
    sum(list_cost_usd) FILTER (WHERE outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')) AS lost_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    flatten(list(teams)) AS teams,
    max(last_call_at) AS last_call_at
  FROM (
    SELECT
      task_id, ticket_id,
      any_value(outcome) AS outcome,
      sum(list_cost_usd) AS list_cost_usd,
      sum(contracted_cost_usd) AS contracted_cost_usd,
      sum(whole_calls) AS calls,
      sum(whole_unpriced_calls) AS unpriced_calls,
      list(team_id) AS teams,
      max(last_call_at) AS last_call_at
    FROM task_days
    WHERE task_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
      AND ($team IS NULL OR team_id = $team)
    GROUP BY task_id, ticket_id
  )
  GROUP BY task_id
)
ORDER BY
  CASE $sort WHEN 'lost' THEN coalesce(lost_cost_usd, -1) WHEN 'calls' THEN calls ELSE list_cost_usd END DESC,
  list_cost_usd DESC, task_id
LIMIT $limit
