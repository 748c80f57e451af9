-- Spend and calls of tasks, and of calls without a task, sum to those of all calls; so do those of task_days.
WITH sums AS (
  SELECT
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0), coalesce(sum(calls), 0))
      FROM task_costs) AS tasks,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0), coalesce(sum(whole_calls), 0))
      FROM task_days) AS days,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0), count(*))
      FROM calls WHERE task_id IS NULL) AS others,
    (SELECT (coalesce(sum(list_cost_usd), 0), coalesce(sum(contracted_cost_usd), 0), count(*)) FROM calls) AS total
)
FROM sums
WHERE days <> total
  OR (tasks[1] + others[1], tasks[2] + others[2], tasks[3] + others[3]) <> total
