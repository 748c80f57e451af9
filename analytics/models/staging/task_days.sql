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
-- The calls are read once, and summed before anything is joined to them. Of those for several tickets, only calls that leave
-- the same remainders are summed together, so that each is split as in call_tickets, to the nano-dollar; their tickets and
-- remainders are a text meanwhile, for to group by a list takes twice as long. A ticket that a call names by two of its keys
-- counts once for it. What became of a ticket is found by each of its names, so that the sums are joined once.
WITH names AS MATERIALIZED (
  SELECT name, ticket_id FROM ticket_names WHERE name <> ticket_id
),
alike AS MATERIALIZED (
  -- The number of a set keeps DuckDB from filtering calls by what they are grouped by.
  SELECT *, row_number() OVER () AS set
  FROM (
    SELECT
      ticket_id AS name, task_id, team_id, CAST(started_at AS DATE) AS day,
      CASE WHEN len(tickets) > 1 THEN to_json({
        tickets: tickets,
        list_left: CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) % len(tickets),
        contracted_left: CAST(CAST(contracted_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) % len(tickets)
      }) END AS several,
      count(*) AS calls,
      count(*) - count(list_cost_usd) AS unpriced_calls,
      coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
      coalesce(sum(contracted_cost_usd), 0) AS contracted_cost_usd,
      min(started_at) AS first_call_at,
      max(started_at) AS last_call_at
    FROM calls
    GROUP BY ALL
  )
),
placed AS (
  SELECT
    * EXCLUDE (name, tickets), len(tickets) AS ways, unnest(tickets) AS name, generate_subscripts(tickets, 1) AS ticket_position
  FROM (
    SELECT
      * EXCLUDE (several),
      unnest(from_json(several, '{"tickets": ["VARCHAR"], "list_left": "BIGINT", "contracted_left": "BIGINT"}'))
    FROM alike
    WHERE several IS NOT NULL
  )
),
split AS (
  -- An equal share of each call, and of what is left a nano-dollar of each call for the first tickets.
  SELECT
    set, name, ticket_position, task_id, team_id, day, calls, unpriced_calls, first_call_at, last_call_at,
    CAST(
      ((list_nano - calls * coalesce(list_left, 0)) // ways + CASE WHEN ticket_position <= list_left THEN calls ELSE 0 END)
      * 0.000000001 AS DECIMAL(38,9)
    ) AS list_cost_usd,
    CAST(
      ((contracted_nano - calls * coalesce(contracted_left, 0)) // ways
        + CASE WHEN ticket_position <= contracted_left THEN calls ELSE 0 END)
      * 0.000000001 AS DECIMAL(38,9)
    ) AS contracted_cost_usd
  FROM (
    SELECT
      * EXCLUDE (list_cost_usd, contracted_cost_usd),
      CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS list_nano,
      CAST(CAST(contracted_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS contracted_nano
    FROM placed
  )
),
summed AS MATERIALIZED (
  SELECT
    name, task_id, team_id, day, calls, calls AS whole_calls, unpriced_calls, unpriced_calls AS whole_unpriced_calls,
    list_cost_usd, contracted_cost_usd, first_call_at, last_call_at
  FROM alike
  WHERE several IS NULL
  UNION ALL
  SELECT
    coalesce(names.ticket_id, split.name) AS name, task_id, team_id, day,
    any_value(calls) AS calls,
    coalesce(any_value(calls) FILTER (WHERE ticket_position = 1), 0) AS whole_calls,
    any_value(unpriced_calls) AS unpriced_calls,
    coalesce(any_value(unpriced_calls) FILTER (WHERE ticket_position = 1), 0) AS whole_unpriced_calls,
    sum(list_cost_usd) AS list_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd,
    any_value(first_call_at) AS first_call_at,
    any_value(last_call_at) AS last_call_at
  FROM split LEFT JOIN names USING (name)
  GROUP BY set, coalesce(names.ticket_id, split.name), task_id, team_id, day
),
names_called AS MATERIALIZED (
  SELECT name, coalesce(names.ticket_id, called.name) AS ticket_id, first_call_at, last_call_at
  FROM (
    SELECT name, min(first_call_at) AS first_call_at, max(last_call_at) AS last_call_at
    FROM summed
    WHERE name IS NOT NULL
    GROUP BY name
  ) AS called LEFT JOIN names USING (name)
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
  FROM (
    SELECT ticket_id, min(first_call_at) AS first_call_at, max(last_call_at) AS last_call_at
    FROM names_called
    GROUP BY ticket_id
  ) AS called
    LEFT JOIN ticket_facts AS facts USING (ticket_id)
    LEFT JOIN projects ON projects.project = regexp_extract(called.ticket_id, '^(.+)[-#][0-9]+$', 1)
)
SELECT
  ticket_id, project, type, outcome, task_id, team_id, day, calls, whole_calls, unpriced_calls,
  whole_unpriced_calls, list_cost_usd, contracted_cost_usd, summed.first_call_at, summed.last_call_at
FROM summed LEFT JOIN (names_called JOIN judged USING (ticket_id)) USING (name)
