-- Statuses that need mapping: of tickets that calls were for, those that mean different things in one project, and those of which nobody knows what they mean. [work] settings say it.
-- GitHub's and GitLab's open issues are in progress by other signs than their status.
WITH called AS (
  SELECT DISTINCT names.ticket_id
  FROM (
    SELECT unnest(tickets) AS name
    FROM calls
    WHERE started_at >= CAST($from AS TIMESTAMP) AND started_at < CAST($to AS TIMESTAMP)
      AND ($team IS NULL OR team_id = $team)
  ) JOIN ticket_names AS names USING (name)
)
SELECT
  source, project, status,
  list_sort(list(DISTINCT coalesce(status_category, '?'))) AS taken_for,
  count(*) AS tickets
FROM tickets SEMI JOIN called USING (ticket_id)
WHERE status IS NOT NULL AND source NOT IN ('github', 'gitlab')
GROUP BY source, project, status
HAVING count(DISTINCT coalesce(status_category, '?')) > 1 OR bool_or(status_category IS NULL)
ORDER BY tickets DESC, source, project, status
