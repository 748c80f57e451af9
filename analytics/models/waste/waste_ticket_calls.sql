-- Calls split over their tickets, and what is known of these. One row per call and ticket.
-- @name: Ticket, as the call names it
-- @ticket_id: Ticket by its present key; NULL when no tracker knows it
-- @state: What the gateway knew of the ticket at the time of the call; of several, only that one of them was unknown
-- @nano: This ticket's share of what is paid for the call, nano-USD; what does not divide goes to the first tickets
-- @is_listed: Whether a sync read all tickets of its project
-- @synced_at: Until when, at most as_of, it would be known if there was such a ticket, UTC
-- @seen_at: Until when, at most as_of, at least something is known of its project, UTC
-- A sync says when it read all of a project (projects). Tickets from files do not: there the last change that any
-- ticket of the tracker tells of says until when it was read, or, where no ticket at all tells of changes, as_of.
WITH parts AS (
  SELECT
    call_id, started_at, user_id, branch, purpose, ticket_source, cost_nano,
    CASE WHEN len(tickets) = 1 OR ticket_state = 'unknown' THEN ticket_state END AS state,
    unnest(tickets) AS name,
    generate_subscripts(tickets, 1) AS place,
    len(tickets) AS ways
  FROM waste_calls
  WHERE is_counted AND len(tickets) > 0
),
changes AS (
  SELECT
    source, regexp_extract(ticket_id, '^(.+)[-#][0-9]+$', 1) AS project,
    greatest(updated_at, done_at, started_at, created_at) AS changed_at, updated_at
  FROM tickets
),
read_all AS (
  SELECT
    (SELECT max(synced_at) FROM projects) AS synced_at,
    CASE WHEN count(updated_at) = 0 AND count(*) > 0 THEN any_value(as_of) ELSE max(changed_at) END AS told_at
  FROM changes, waste_terms
),
read_of AS (
  SELECT project, max(changed_at) FILTER (updated_at IS NOT NULL) OVER (PARTITION BY source) AS told_at
  FROM changes
  QUALIFY row_number() OVER (PARTITION BY project) = 1
),
named AS (
  SELECT
    name, names.ticket_id, regexp_extract(coalesce(names.ticket_id, name), '^(.+)[-#][0-9]+$', 1) AS project
  FROM (SELECT DISTINCT name FROM parts) LEFT JOIN ticket_names AS names USING (name)
),
known AS (
  SELECT
    name, ticket_id, projects.synced_at IS NOT NULL AS is_listed,
    coalesce(projects.synced_at, read_of.told_at, greatest(read_all.synced_at, read_all.told_at)) AS all_at,
    greatest(projects.synced_at, coalesce(read_of.told_at, read_all.told_at)) AS some_at
  FROM named LEFT JOIN projects USING (project) LEFT JOIN read_of USING (project) CROSS JOIN read_all
)
SELECT
  parts.* EXCLUDE (place, ways),
  cost_nano // nullif(ways, 0) + CASE WHEN place <= cost_nano % nullif(ways, 0) THEN 1 ELSE 0 END AS nano,
  ticket_id, is_listed,
  CASE WHEN all_at IS NOT NULL THEN least(all_at, as_of) END AS synced_at,
  CASE WHEN some_at IS NOT NULL THEN least(some_at, as_of) END AS seen_at
FROM parts JOIN known USING (name) CROSS JOIN waste_terms
