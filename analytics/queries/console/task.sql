-- A task: what it cost, and what became of the tickets that it was for. At most one row.
SELECT
  task_id, tickets, outcome, teams, first_call_at, last_call_at, calls, unpriced_calls, input_tokens, output_tokens,
  list_cost_usd, contracted_cost_usd
FROM task_costs
WHERE task_id = $task
