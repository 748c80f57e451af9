-- What tickets are called: by their present key, and by keys that they had before. One row per name.
-- @name: Present or earlier key
-- @ticket_id: Present key
-- @status_category: What the ticket's status means: todo, in_progress, done
-- @done_at: When the ticket was done, UTC
-- A ticket that was moved may still be stored under the key it had before: of what is said about a name, the latest
-- counts. It is followed from key to key, as tickets may move more than once. Of most keys nobody else says anything.
WITH RECURSIVE known AS MATERIALIZED (
  SELECT ticket_id, aliases, updated_at, status_category, done_at FROM tickets
),
other_names AS MATERIALIZED (
  SELECT unnest(aliases) AS name, ticket_id, updated_at FROM known WHERE len(aliases) > 0
),
said AS MATERIALIZED (
  SELECT name, ticket_id
  FROM (
    SELECT ticket_id AS name, ticket_id, updated_at FROM known WHERE ticket_id IN (SELECT name FROM other_names)
    UNION ALL
    SELECT name, ticket_id, updated_at FROM other_names
  )
  QUALIFY row_number() OVER (
    PARTITION BY name ORDER BY updated_at DESC NULLS LAST, name = ticket_id, ticket_id
  ) = 1
),
moves AS (
  SELECT name, ticket_id, 1 AS steps FROM said
  UNION ALL
  SELECT moves.name, said.ticket_id, moves.steps + 1
  FROM moves JOIN said ON said.name = moves.ticket_id
  WHERE said.ticket_id <> moves.ticket_id AND moves.steps < 10
),
followed AS (
  SELECT name, ticket_id FROM moves QUALIFY row_number() OVER (PARTITION BY name ORDER BY steps DESC) = 1
)
SELECT followed.name, known.ticket_id, known.status_category, known.done_at
FROM followed JOIN known USING (ticket_id)
UNION ALL
SELECT ticket_id, ticket_id, status_category, done_at FROM known ANTI JOIN other_names ON other_names.name = known.ticket_id
