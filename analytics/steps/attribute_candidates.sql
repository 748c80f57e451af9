-- A call without a ticket whose candidates the tracker knows by now, as a ticket or as a pull request with tickets: all
-- that the most trusted source stated, if all of that is known. What is a candidate of a branch is none of a statement.
UPDATE looked
SET rule = 'candidate', tickets = found.tickets, source = found.source,
  candidates = list_filter(candidates, lambda candidate: NOT starts_with(candidate, found.source || ':'))
FROM (
  WITH named AS (
    SELECT
      call_id, split_part(candidate, ':', 1) AS source, substr(candidate, strpos(candidate, ':') + 1) AS name, position
    FROM (
      SELECT call_id, unnest(candidates) AS candidate, generate_subscripts(candidates, 1) AS position
      FROM looked WHERE len(tickets) = 0
    )
    WHERE source IN ('claim', 'key', 'header', 'path', 'metadata')
  ),
  known AS (
    SELECT
      call_id, named.source,
      flatten(list(
        CASE WHEN names.ticket_id IS NOT NULL THEN [names.ticket_id] ELSE coalesce(prs.tickets, []) END ORDER BY position
      )) AS tickets
    FROM named
      LEFT JOIN ticket_names AS names USING (name)
      LEFT JOIN pr_evidence AS prs ON prs.reference = name
    GROUP BY ALL
    HAVING bool_and(names.ticket_id IS NOT NULL OR len(coalesce(prs.tickets, [])) > 0)
  )
  SELECT call_id, arg_min(source, trust) AS source, arg_min(tickets, trust) AS tickets
  FROM (SELECT *, list_position(['claim', 'key', 'header', 'path', 'metadata'], source) AS trust FROM known)
  GROUP BY call_id
) AS found
WHERE looked.call_id = found.call_id
