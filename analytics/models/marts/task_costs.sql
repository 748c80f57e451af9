-- What each task cost, and what became of its work. One row per task.
-- @tickets: All tickets that the task's calls were for, by their present keys
-- @outcome: What became of the ticket that most of its cost is for: delivered, in_progress, abandoned, stale, reverted, unknown_ticket; NULL when it is for none, or for one whose tracker was not read
-- @teams: Teams whose keys made the calls
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are in no sum
-- @input_tokens: Input tokens as billed, cache reads and writes included
-- @output_tokens: Output tokens as billed, reasoning included
-- @list_cost_usd: Sum of the priced calls at list price, USD
-- @contracted_cost_usd: Sum of the priced calls after discounts, USD
WITH spent AS (
  SELECT
    task_id,
    list_sort(list(DISTINCT team_id) FILTER (WHERE team_id IS NOT NULL)) AS teams,
    min(started_at) AS first_call_at,
    max(started_at) AS last_call_at,
    count(*) AS calls,
    count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
    coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd
  FROM calls
  WHERE task_id IS NOT NULL
  GROUP BY task_id
),
by_ticket AS (
  SELECT task_id, ticket_id, any_value(outcome) AS outcome, sum(list_cost_usd) AS list_cost_usd
  FROM task_days
  WHERE task_id IS NOT NULL AND ticket_id IS NOT NULL
  GROUP BY task_id, ticket_id
),
ticketed AS (
  SELECT
    task_id,
    list(ticket_id ORDER BY ticket_id) AS tickets,
    arg_min_null(outcome, (-list_cost_usd, ticket_id)) AS outcome
  FROM by_ticket
  GROUP BY task_id
)
SELECT
  task_id, coalesce(tickets, []) AS tickets, outcome, teams, first_call_at, last_call_at, calls, unpriced_calls,
  input_tokens, output_tokens, list_cost_usd, contracted_cost_usd
FROM spent LEFT JOIN ticketed USING (task_id)
