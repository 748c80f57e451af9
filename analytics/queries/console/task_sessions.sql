-- Where a task's calls came from. One row per client, session, repository and branch.
SELECT
  client, client_version, task_source, repo, branch, count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls, coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
  min(started_at) AS first_call_at, max(started_at) AS last_call_at
FROM calls
WHERE task_id = $task
GROUP BY ALL
ORDER BY first_call_at
