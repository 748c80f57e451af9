-- A call without a ticket on the branch of a pull request: the tickets of the one that was opened first of those that
-- had not ended when the call started. Not of one that was opened much later: names of branches are used again. Nor
-- without the repository: others have branches of that name, too.
UPDATE looked
SET rule = 'branch', tickets = found.tickets, source = 'branch'
FROM (
  SELECT call_id, prs.tickets
  FROM looked JOIN pr_evidence AS prs ON lower(prs.repo) = lower(looked.repo) AND prs.branch = looked.branch
  WHERE len(looked.tickets) = 0
    AND (ended_at IS NULL OR started_at < ended_at)
    AND (created_at IS NULL OR started_at >= created_at - INTERVAL 30 DAY)
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY created_at, number) = 1
) AS found
WHERE looked.call_id = found.call_id AND len(found.tickets) > 0
