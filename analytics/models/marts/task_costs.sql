-- What each task cost. One row per task.
-- @tickets: All tickets that the task's calls were for
-- @teams: Teams whose keys made the calls
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are not in list_cost_usd
-- @input_tokens: Input tokens as billed, cache reads and writes included
-- @output_tokens: Output tokens as billed, reasoning included
-- @list_cost_usd: Sum of the priced calls at list price, USD
SELECT
  task_id,
  list_sort(list_distinct(flatten(list(tickets)))) AS tickets,
  list_sort(list(DISTINCT team_id) FILTER (WHERE team_id IS NOT NULL)) AS teams,
  min(started_at) AS first_call_at,
  max(started_at) AS last_call_at,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
  CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
WHERE task_id IS NOT NULL
GROUP BY task_id
