-- A ticket: what is known of it, what it cost, and what came of it. At most one row.
WITH asked AS (
  SELECT coalesce((SELECT min(ticket_id) FROM ticket_names WHERE name = $ticket), $ticket) AS ticket_id
),
spent AS (
  SELECT
    ticket_id,
    any_value(project) AS project,
    any_value(outcome) AS outcome,
    list_sort(list(DISTINCT team_id) FILTER (WHERE team_id IS NOT NULL)) AS teams,
    min(first_call_at) AS first_call_at,
    max(last_call_at) AS last_call_at,
    count(DISTINCT task_id) AS tasks,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    sum(list_cost_usd) AS list_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd
  FROM task_days
  WHERE ticket_id = (SELECT ticket_id FROM asked)
  GROUP BY ticket_id
),
facts AS (
  FROM ticket_facts WHERE ticket_id = (SELECT ticket_id FROM asked)
)
SELECT
  asked.ticket_id, facts.title, facts.type, coalesce(facts.project, spent.project) AS project,
  coalesce(spent.outcome, facts.outcome) AS outcome, tickets.status, tickets.resolution, tickets.estimate, tickets.parent_id,
  tickets.labels, facts.url, teams, calls, unpriced_calls, tasks, list_cost_usd, contracted_cost_usd, first_call_at,
  last_call_at, facts.created_at, facts.started_at, facts.done_at, facts.delivered_at, facts.deployed_at,
  facts.pull_requests, facts.merged_pull_requests, facts.reverted_pull_requests, facts.judged_at
FROM asked
  LEFT JOIN spent USING (ticket_id)
  LEFT JOIN facts USING (ticket_id)
  LEFT JOIN tickets USING (ticket_id)
WHERE spent.ticket_id IS NOT NULL OR facts.ticket_id IS NOT NULL
