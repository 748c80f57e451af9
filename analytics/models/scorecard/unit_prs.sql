-- Pull requests that arrived, gathered into units of work: what has a ticket in common, what one author merged within some days in the same files, small ones that an author merged on one day, and what lands again. One row per pull request of kind work.
-- @unit_id: Unit of work, called after the first of its pull requests
-- @roots: Tickets that it is for; of a part of a ticket, that ticket, one level up, never an epic
-- A pull request joins others step by step: the unit is all that hangs together.
WITH RECURSIVE prs AS MATERIALIZED (
  SELECT
    arrived_prs.*, row_number() OVER (ORDER BY merged_at, repo, CAST(split_part(pr_id, '!', -1) AS BIGINT), pr_id) AS place,
    epic_types, join_hours, join_overlap, join_lines, tiny_lines
  FROM arrived_prs JOIN scorecard_terms ON merged_at >= applies_from AND merged_at < applies_to
  WHERE kind = 'work'
),
types AS MATERIALIZED (
  SELECT ticket_id, parent_id, lower(regexp_replace(type, '[^\p{L}]', '', 'g')) AS type FROM tickets
),
parents AS MATERIALIZED (
  SELECT types.ticket_id, coalesce(names.ticket_id, types.parent_id) AS parent_id, above.type AS parent_type
  FROM types LEFT JOIN ticket_names AS names ON names.name = types.parent_id
    LEFT JOIN types AS above ON above.ticket_id = names.ticket_id
  WHERE types.type = 'subtask' AND types.parent_id IS NOT NULL
),
pr_roots AS MATERIALIZED (
  SELECT DISTINCT
    place, CASE WHEN list_contains(epic_types, parent_type) THEN ticket_id ELSE coalesce(parent_id, ticket_id) END AS root
  FROM pr_ticket_weights JOIN prs USING (pr_id) LEFT JOIN parents USING (ticket_id)
),
by_ticket AS (
  SELECT place AS one, min(place) OVER (PARTITION BY root) AS other FROM pr_roots
),
by_day AS (
  SELECT place AS one, min(place) OVER (PARTITION BY repo, author, is_reviewed, date_trunc('day', merged_at)) AS other
  FROM prs
  WHERE author IS NOT NULL AND lines > tiny_lines AND lines < join_lines
),
-- Merges lie at most join_hours apart when they are in the same stretch of so many hours, or in two that touch.
touched AS MATERIALIZED (
  SELECT
    place, repo, author, merged_at, unnest(list_distinct(files)) AS file, len(list_distinct(files)) AS files,
    join_hours, join_overlap, CAST(epoch(merged_at) AS BIGINT) // (3600 * join_hours) AS stretch
  FROM prs
  WHERE author IS NOT NULL AND join_hours > 0
),
by_files AS (
  SELECT was.place AS one, next.place AS other
  FROM touched AS was
    JOIN (
      FROM touched
      UNION ALL
      SELECT * REPLACE (stretch - 1 AS stretch) FROM touched
    ) AS next USING (repo, author, file, stretch)
  WHERE was.place <> next.place AND abs(epoch(next.merged_at - was.merged_at)) <= 3600 * was.join_hours
  GROUP BY was.place, next.place
  HAVING count(DISTINCT file) >= any_value(was.join_overlap) * least(any_value(was.files), any_value(next.files))
),
pairs AS MATERIALIZED (
  FROM by_ticket
  UNION
  FROM by_day
  UNION
  FROM by_files
  UNION
  SELECT again.place, was.place FROM prs AS again JOIN prs AS was ON was.pr_id = again.lands_again
),
links AS MATERIALIZED (
  SELECT one, other FROM pairs WHERE one <> other
  UNION
  SELECT other, one FROM pairs WHERE one <> other
),
units(place, first) USING KEY (place) AS (
  SELECT place, place FROM prs
  UNION
  SELECT place, better.first
  FROM (
    SELECT links.other AS place, min(units.first) AS first
    FROM units JOIN links ON links.one = units.place
    GROUP BY links.other
  ) AS better JOIN recurring.units AS now USING (place)
  WHERE better.first < now.first
),
named AS (
  SELECT place, list(root ORDER BY root) AS roots FROM pr_roots GROUP BY place
)
SELECT
  called.pr_id AS unit_id, prs.* EXCLUDE (kind, author, place, epic_types, join_hours, join_overlap, join_lines, tiny_lines, lands_again),
  coalesce(roots, []) AS roots
FROM prs JOIN units USING (place) JOIN prs AS called ON called.place = units.first LEFT JOIN named USING (place)
