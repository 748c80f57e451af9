-- Statuses that need mapping: of tickets that calls were for, those that mean different things in one project, and those of which nobody knows what they mean. [work] settings say it.
-- GitHub's and GitLab's open issues are in progress by other signs than their status. Calls are read only where there is
-- such a status at all (any_unclear).
WITH known AS (
  SELECT ticket_id, source, project, status, coalesce(status_category, '?') AS status_category
  FROM tickets
  WHERE status IS NOT NULL AND source NOT IN ('github', 'gitlab')
),
any_unclear AS MATERIALIZED (
  SELECT true AS is_there
  FROM known
  GROUP BY source, project, status
  HAVING count(DISTINCT status_category) > 1 OR bool_or(status_category = '?')
  LIMIT 1
),
called AS (
  SELECT DISTINCT names.ticket_id
  FROM (
    SELECT ticket_id AS name
    FROM calls, any_unclear
    WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
      AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
      AND ($team IS NULL OR team_id = $team)
    GROUP BY ticket_id
    UNION
    SELECT unnest(tickets)
    FROM calls, any_unclear
    WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
      AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
      AND ($team IS NULL OR team_id = $team)
      AND len(tickets) > 1
  ) JOIN ticket_names AS names USING (name)
)
SELECT source, project, status, list_sort(list(DISTINCT status_category)) AS taken_for, count(*) AS tickets
FROM known SEMI JOIN called USING (ticket_id)
GROUP BY source, project, status
HAVING count(DISTINCT status_category) > 1 OR bool_or(status_category = '?')
ORDER BY tickets DESC, source, project, status
