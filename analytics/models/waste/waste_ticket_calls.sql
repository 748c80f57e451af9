-- Calls split over their tickets, and what is known of these. One row per call and ticket.
-- @name: Ticket, as the call names it
-- @ticket_id: Ticket by its present key; NULL when no tracker knows it
-- @nano: This ticket's share of what is paid for the call, nano-USD; what does not divide goes to the first tickets
-- @synced_at: When all tickets of its project were last read, UTC; of a project that no tracker has, when any was; NULL when some were left out
-- @seen_at: Until when at least something is known of its project, UTC
WITH parts AS (
  SELECT
    call_id, started_at, user_id, branch, purpose, ticket_source, ticket_state, cost_nano,
    unnest(tickets) AS name,
    generate_subscripts(tickets, 1) AS place,
    len(tickets) AS ways
  FROM waste_calls
  WHERE is_counted AND len(tickets) > 0
),
seen AS (
  SELECT regexp_extract(ticket_id, '^(.+)[-#][0-9]+$', 1) AS project, max(updated_at) AS updated_at
  FROM tickets
  GROUP BY ALL
),
shares AS (
  SELECT
    * EXCLUDE (place, ways),
    cost_nano // nullif(ways, 0) + CASE WHEN place <= cost_nano % nullif(ways, 0) THEN 1 ELSE 0 END AS nano,
    regexp_extract(name, '^(.+)[-#][0-9]+$', 1) AS project
  FROM parts
)
SELECT
  shares.* EXCLUDE (project),
  names.ticket_id,
  CASE WHEN projects.project IS NULL THEN (SELECT max(synced_at) FROM projects) ELSE projects.synced_at END AS synced_at,
  greatest(projects.synced_at, seen.updated_at) AS seen_at
FROM shares
  LEFT JOIN ticket_names AS names USING (name)
  LEFT JOIN projects ON projects.project = shares.project
  LEFT JOIN seen ON seen.project = shares.project
