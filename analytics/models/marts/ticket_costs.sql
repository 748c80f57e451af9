-- What each ticket cost, and what became of it. One row per ticket that calls were for.
-- @ticket_id: Ticket by its present key
-- @title: Title
-- @teams: Teams whose keys made the calls
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- @tasks: Number of tasks
-- @before_start_usd: Part of list_cost_usd for calls before work on the ticket began, USD; NULL when it is not known to have begun
-- @after_done_usd: Part of list_cost_usd for calls after the ticket was done, USD; NULL while it is not done
-- @survived_14d: Whether what was delivered was there 14 days later: survived, reverted, or pending while it is younger; NULL when nothing was delivered
-- @survived_30d: The same after 30 days
-- @lead_time_hours: From when the ticket was made until it was delivered, hours; NULL when it was not, or is reverted
-- @cycle_time_hours: From when work on the ticket began until it was delivered, hours
-- What came before the start and after the end is told call by call.
WITH spent AS (
  SELECT
    ticket_id,
    any_value(project) AS project,
    any_value(type) AS type,
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
  WHERE ticket_id IS NOT NULL
  GROUP BY ticket_id
),
outside AS (
  SELECT
    tickets.ticket_id,
    sum(ticket_cost_usd) FILTER (WHERE parts.started_at < tickets.started_at) AS before_start_usd,
    sum(ticket_cost_usd) FILTER (WHERE parts.started_at > tickets.done_at) AS after_done_usd
  FROM call_tickets AS parts
    JOIN ticket_names AS names ON names.name = parts.ticket_id
    JOIN tickets ON tickets.ticket_id = names.ticket_id
  WHERE parts.started_at < tickets.started_at OR parts.started_at > tickets.done_at
  GROUP BY tickets.ticket_id
)
SELECT
  ticket_id, spent.project, spent.type, title, spent.outcome, teams, first_call_at, last_call_at, tasks, calls,
  unpriced_calls, list_cost_usd, contracted_cost_usd,
  CASE WHEN started_at IS NOT NULL THEN coalesce(before_start_usd, 0) END AS before_start_usd,
  CASE WHEN done_at IS NOT NULL THEN coalesce(after_done_usd, 0) END AS after_done_usd,
  CASE
    WHEN delivered_at IS NULL THEN NULL
    WHEN reverted_days < 14 THEN 'reverted'
    WHEN as_of >= delivered_at + INTERVAL 14 DAY THEN 'survived'
    ELSE 'pending'
  END AS survived_14d,
  CASE
    WHEN delivered_at IS NULL THEN NULL
    WHEN reverted_days < 30 THEN 'reverted'
    WHEN as_of >= delivered_at + INTERVAL 30 DAY THEN 'survived'
    ELSE 'pending'
  END AS survived_30d,
  created_at, started_at, done_at, merged_at, deployed_at, delivered_at,
  CASE WHEN spent.outcome = 'delivered' THEN round(date_diff('second', created_at, delivered_at) / 3600, 1) END
    AS lead_time_hours,
  CASE WHEN spent.outcome = 'delivered' THEN round(date_diff('second', started_at, delivered_at) / 3600, 1) END
    AS cycle_time_hours,
  pull_requests, merged_pull_requests, reverted_pull_requests, pull_request_share, url
FROM as_of, spent
  LEFT JOIN ticket_facts USING (ticket_id)
  LEFT JOIN outside USING (ticket_id)
