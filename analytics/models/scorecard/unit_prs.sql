-- Pull requests that arrived, gathered into units of work: what has a ticket in common, and what one author merged within some days in the same files. One row per pull request of kind work.
-- @unit_id: Unit of work, called after the first of its pull requests
-- @roots: Tickets that it is for; of a part of a ticket, that ticket, one level up, never an epic
-- A pull request joins others step by step: the unit is all that hangs together.
WITH RECURSIVE prs AS MATERIALIZED (
  FROM arrived_prs WHERE kind = 'work'
),
types AS MATERIALIZED (
  SELECT ticket_id, parent_id, lower(regexp_replace(type, '[^\p{L}]', '', 'g')) AS type FROM tickets
),
roots AS MATERIALIZED (
  SELECT child.ticket_id, names.ticket_id AS root
  FROM types AS child
    JOIN ticket_names AS names ON names.name = child.parent_id
    JOIN types AS parent ON parent.ticket_id = names.ticket_id
    CROSS JOIN as_of JOIN scorecard_terms ON as_of >= applies_from AND as_of < applies_to
  WHERE CASE WHEN parent.type IS NULL THEN child.type = 'subtask' ELSE NOT list_contains(epic_types, parent.type) END
  UNION ALL
  SELECT ticket_id, parent_id FROM types ANTI JOIN ticket_names ON name = parent_id
  WHERE type = 'subtask' AND parent_id IS NOT NULL
),
pr_roots AS MATERIALIZED (
  SELECT DISTINCT pr_id, coalesce(root, ticket_id) AS root
  FROM pr_ticket_weights SEMI JOIN prs USING (pr_id) LEFT JOIN roots USING (ticket_id)
),
by_ticket AS (
  SELECT pr_id AS one, min(pr_id) OVER (PARTITION BY root) AS other FROM pr_roots
),
-- Merges lie at most join_hours apart when they are in the same stretch of so many hours, or in two that touch.
touched AS MATERIALIZED (
  SELECT
    pr_id, repo, author, merged_at, unnest(list_distinct(files)) AS file, len(list_distinct(files)) AS files,
    join_hours, join_overlap, CAST(epoch(merged_at) AS BIGINT) // (3600 * join_hours) AS stretch
  FROM prs JOIN scorecard_terms ON merged_at >= applies_from AND merged_at < applies_to
  WHERE author IS NOT NULL AND join_hours > 0
),
by_files AS (
  SELECT was.pr_id AS one, next.pr_id AS other
  FROM touched AS was
    JOIN (
      FROM touched
      UNION ALL
      SELECT * REPLACE (stretch - 1 AS stretch) FROM touched
    ) AS next USING (repo, author, file, stretch)
  WHERE was.pr_id <> next.pr_id AND abs(epoch(next.merged_at - was.merged_at)) <= 3600 * was.join_hours
  GROUP BY was.pr_id, next.pr_id
  HAVING count(DISTINCT file) >= any_value(was.join_overlap) * least(any_value(was.files), any_value(next.files))
),
links AS MATERIALIZED (
  SELECT one, other FROM by_ticket WHERE one <> other
  UNION
  SELECT other, one FROM by_ticket WHERE one <> other
  UNION
  SELECT one, other FROM by_files
  UNION
  SELECT other, one FROM by_files
),
units(pr_id, unit_id) USING KEY (pr_id) AS (
  SELECT pr_id, pr_id FROM prs
  UNION
  SELECT pr_id, better.unit_id
  FROM (
    SELECT links.other AS pr_id, min(units.unit_id) AS unit_id
    FROM units JOIN links ON links.one = units.pr_id
    GROUP BY links.other
  ) AS better JOIN recurring.units AS now USING (pr_id)
  WHERE better.unit_id < now.unit_id
),
named AS (
  SELECT pr_id, list(root ORDER BY root) AS roots FROM pr_roots GROUP BY pr_id
)
SELECT unit_id, prs.* EXCLUDE (kind, author), coalesce(roots, []) AS roots
FROM prs JOIN units USING (pr_id) LEFT JOIN named USING (pr_id)
