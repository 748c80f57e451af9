-- A ticket: what is known of it, what it cost, and what came of it, which is judged as in task_days. At most one row.
SELECT
  asked.ticket_id, facts.title, facts.type,
  coalesce(facts.project, nullif(regexp_extract(asked.ticket_id, '^(.+)[-#][0-9]+$', 1), '')) AS project,
  CASE
    WHEN calls = 0 THEN facts.outcome
    WHEN facts.ticket_id IS NULL THEN CASE WHEN synced_at >= first_call_at + INTERVAL 24 HOUR THEN 'unknown_ticket' END
    WHEN facts.outcome = 'stale' AND last_call_at >= judged_at - INTERVAL 30 DAY THEN 'in_progress'
    ELSE facts.outcome
  END AS outcome,
  tickets.status, tickets.resolution, tickets.estimate, tickets.parent_id, tickets.labels, facts.url, teams, calls,
  unpriced_calls, tasks, list_cost_usd, contracted_cost_usd, first_call_at, last_call_at, facts.created_at,
  facts.started_at, facts.done_at, facts.delivered_at, facts.deployed_at, facts.pull_requests,
  facts.merged_pull_requests, facts.reverted_pull_requests, facts.judged_at
FROM (SELECT $ticket AS ticket_id) AS asked
  CROSS JOIN (
    SELECT
      list_sort(list(DISTINCT team_id) FILTER (WHERE team_id IS NOT NULL)) AS teams,
      min(started_at) AS first_call_at,
      max(started_at) AS last_call_at,
      count(DISTINCT task_id) AS tasks,
      count(*) AS calls,
      count(*) - count(list_cost_usd) AS unpriced_calls,
      coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
      coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd
    FROM ticket_parts
  )
  LEFT JOIN ticket_facts AS facts ON facts.ticket_id = asked.ticket_id
  LEFT JOIN tickets ON tickets.ticket_id = asked.ticket_id
  LEFT JOIN projects ON projects.project = regexp_extract(asked.ticket_id, '^(.+)[-#][0-9]+$', 1)
WHERE calls > 0 OR facts.ticket_id IS NOT NULL
