-- Spend by task, ticket, team and day, and what became of the ticket: what all that is told of tickets and tasks is summed from. One row per combination.
-- @ticket_id: Ticket by its present key; NULL for calls without one
-- @project: Project of the ticket
-- @type: Kind of ticket: bug, story, task, …
-- @outcome: What became of the ticket: delivered, in_progress, abandoned, stale, reverted, unknown_ticket; NULL without a ticket, and for one whose tracker was not read
-- @day: UTC day on which the calls started
-- @calls: Number of calls; one that is for several tickets counts for each of them
-- @whole_calls: How many of them have this ticket, or none, as their first: over all rows each call counts once
-- @unpriced_calls: Calls without a price; they are in no sum
-- @whole_unpriced_calls: How many of them have this ticket, or none, as their first
-- @list_cost_usd: Sum of the ticket's shares of the priced calls at list price, USD
-- @contracted_cost_usd: Sum of the ticket's shares of the priced calls after discounts, USD
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- The calls are read twice, and not more often: those for one ticket or none, summed before anything is joined to them, and
-- those for several. A ticket that a call names by two of its keys counts once for it.
WITH summed AS MATERIALIZED (
  SELECT
    coalesce(names.ticket_id, one.ticket_id) AS ticket_id, task_id, team_id, day, calls, calls AS whole_calls,
    unpriced_calls, unpriced_calls AS whole_unpriced_calls, list_cost_usd, contracted_cost_usd, first_call_at, last_call_at
  FROM (
    SELECT
      ticket_id, task_id, team_id, CAST(started_at AS DATE) AS day,
      count(*) AS calls,
      count(*) - count(list_cost_usd) AS unpriced_calls,
      coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
      coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd,
      min(started_at) AS first_call_at,
      max(started_at) AS last_call_at
    FROM calls
    WHERE len(tickets) <= 1
    GROUP BY ALL
  ) AS one LEFT JOIN ticket_names AS names ON names.name = one.ticket_id
  UNION ALL
  SELECT
    ticket_id, task_id, team_id, CAST(started_at AS DATE) AS day,
    count(*) AS calls,
    count(*) FILTER (WHERE is_first) AS whole_calls,
    count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
    count(*) FILTER (WHERE list_cost_usd IS NULL AND is_first) AS whole_unpriced_calls,
    coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
    coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd,
    min(started_at) AS first_call_at,
    max(started_at) AS last_call_at
  FROM (
    SELECT
      call_id, coalesce(names.ticket_id, shares.ticket_id) AS ticket_id, task_id, team_id, started_at,
      bool_or(ticket_position = 1) AS is_first,
      sum(ticket_cost_usd) AS list_cost_usd,
      sum(ticket_contracted_cost_usd) AS contracted_cost_usd
    FROM call_shares AS shares LEFT JOIN ticket_names AS names ON names.name = shares.ticket_id
    GROUP BY ALL
  )
  GROUP BY ALL
),
tickets_called AS (
  SELECT ticket_id, min(first_call_at) AS first_call_at, max(last_call_at) AS last_call_at
  FROM summed
  WHERE ticket_id IS NOT NULL
  GROUP BY ticket_id
),
judged AS (
  SELECT
    called.ticket_id,
    coalesce(facts.project, nullif(regexp_extract(called.ticket_id, '^(.+)[-#][0-9]+$', 1), '')) AS project,
    type,
    CASE
      WHEN facts.ticket_id IS NULL THEN CASE
        WHEN synced_at >= called.first_call_at + INTERVAL 24 HOUR THEN 'unknown_ticket' END
      WHEN outcome = 'stale' AND called.last_call_at >= judged_at - INTERVAL 30 DAY THEN 'in_progress'
      ELSE outcome
    END AS outcome
  FROM tickets_called AS called
    LEFT JOIN ticket_facts AS facts USING (ticket_id)
    LEFT JOIN projects ON projects.project = regexp_extract(called.ticket_id, '^(.+)[-#][0-9]+$', 1)
)
SELECT
  summed.ticket_id, project, type, outcome, task_id, team_id, day, calls, whole_calls, unpriced_calls,
  whole_unpriced_calls, list_cost_usd, contracted_cost_usd, first_call_at, last_call_at
FROM summed LEFT JOIN judged USING (ticket_id)
